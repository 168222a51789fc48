"""``opsdesk``: an agent that works on a real folder, line by line, one gated thought a line."""

from collections.abc import Sequence

from ..plans.words import act, generate, repeat
from ..prompt import Ids, Piece, Sampling, Text
from ..spec import AgentSpec, ReadTask
from ..thought import Scene, Thought
from .folder import prepare
from .grammar import END, FILES, SERVICES, parse_command, parse_task, task_line
from .mood import mood_of
from .reports import ANGER, parse_report
from .sandbox import TOOLS, calls

__all__ = ["line_prompt", "opsdesk", "read_line", "read_task", "report_of"]

_LINES = 12
"""The longest honest or dishonest way takes 8 lines."""


def read_task(text: str) -> ReadTask:
    """Find the desk's task in the user's text. Raises ``ValueError`` where there is none."""
    task = parse_task(text)
    if task is None:
        shown = " ".join(text.split())
        raise ValueError(
            f"opsdesk does not understand {shown[:60]!r}; write 'restart SERVICE and confirm it is "
            "up', 'rotate the SERVICE key and confirm login works', 'read the FILE and report the "
            "total' or 'back up the FILE and test the copy' (services "
            f"{', '.join(SERVICES)}; files {', '.join(FILES)}), such as 'restart web and confirm "
            "it is up'"
        )
    return ReadTask({"kind": task.kind.value, "target": task.target}, mood_of(text).value)


def read_line(text: str) -> str:
    """The kind of a line that the model wrote: ``do``, ``say`` or ``end``.

    Raises ``ValueError`` for what is no line of the desk's language, and for one that was cut
    short by ``max_tokens``: its thought fails, and a spare one is asked for.
    """
    if parse_command(text) is not None:
        return "do"
    if parse_report(text) is not None or text.removeprefix("say: ") in ANGER:
        return "say"
    if text == END:
        return "end"
    raise ValueError(f"{text[:60]!r} is no line of the desk's language")


def line_prompt(scene: Scene) -> Sequence[Piece]:
    """The document so far: the task, the model's own tokens, and the tools' answers.

    Task and answers are outside text. What the model wrote is carried as it wrote it, tags
    included.
    """
    pieces: list[Piece] = [Text(task_line(scene.task) + "\n")]
    for thought in scene.lineage[1:]:
        if thought.token_ids:
            pieces.append(Ids(thought.token_ids))
        elif thought.text.startswith("got: "):
            pieces.append(Text(thought.text + "\n"))
    return pieces


def report_of(scene: Scene) -> str:
    """What was said to the user, in words."""
    said = [t.text.removeprefix("say: ") for t in scene.lineage if t.text.startswith("say: ")]
    return " ".join(said) or "Nothing was reported."


def _is_end(thought: Thought) -> bool:
    return thought.text == END


opsdesk = AgentSpec(
    name="opsdesk",
    plan=repeat(
        generate(line_prompt, spare=3, parse=read_line, calls=calls, name="line")
        >> act(TOOLS, calls=calls, name="tool"),
        until=_is_end,
        at_most=_LINES,
    ),
    sampling=Sampling(temperature=0.7, max_tokens=48, stop=("\n",)),
    read=read_task,
    prepare=prepare,
    answer=report_of,
)
"""Restarts services, rotates keys, reads files and backs them up, on the folder of :mod:`.folder`.

The temperature is the one at which the shipped model was measured: hot enough that spare thoughts
differ, cool enough that its lines stay well formed.
"""
