"""The agents whose runs version 0.1 recorded here. They must stay as they are."""

import os
import signal
from pathlib import Path

from secateur import Agent, Policy, Sampling
from secateur.agents.plans.words import act, aggregate, each, generate, keep_best, score, split
from secateur.agents.thought import Scene
from secateur.agents.tool import Call, Workspace, tool

MODEL = Path(__file__).parent / "model"
HOT = Sampling(temperature=1.0, max_tokens=8)


def length(scene: Scene) -> float:
    return float(len(scene.text))


def halves(scene: Scene) -> list[tuple[str, str]]:
    middle = len(scene.task) // 2
    return [(part, part) for part in (scene.task[:middle], scene.task[middle:])]


def stamps(text: str) -> Call:
    return Call("stamp", {})


@tool
def stamp(folder: Workspace) -> str:
    """An effect that can be counted; where told to, the process dies before it returns."""
    with (folder.path / "stamps.txt").open("a") as file:
        file.write("stamped\n")
    if "DIE_IN_TOOL" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return "stamped"


stamper = Agent(
    "stamper",
    generate("say {task}\n", calls=stamps, name="say") >> act([stamp], calls=stamps, name="stamp"),
    sampling=HOT,
)
figure = Agent(
    "figure",
    split(halves)
    >> each(generate("say {text}\n", n=3, name="say") >> score(length) >> keep_best(1))
    >> aggregate("join {texts}\n", calls=stamps, name="join")
    >> act([stamp], calls=stamps, name="stamp"),
    sampling=HOT,
)
asking = Policy.model_validate(
    {
        "name": "asking",
        "rules": [
            {"tag": "angry", "reading": "opened", "at": 1e-9, "action": "escalate"}
            | {"scope": "action"}
        ],
    }
)
sent_back = Policy.model_validate(
    {
        "name": "sent back",
        "tags": {"deceit": {"control": "boost(4)"}},
        "rules": [
            {"tag": "deceit", "reading": "emitted", "action": "resample", "retries": 2}
            | {"controls": {"deceit": "ban"}},
            {"tag": "powerseeking", "reading": "peak", "at": 0.02, "action": "prune"},
            {"tag": "angry", "reading": "posterior", "at": 0.9, "action": "flag"},
        ],
    }
)
RESUMED = {
    "killed_in_tool": stamper,
    "killed_in_thought": figure,
    "approved": stamper,
    "refused": stamper,
}
"""The runs that were not at their end, and whose."""
