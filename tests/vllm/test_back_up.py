"""Back up and retry, and switches in mid-generation, through a real server."""

from pathlib import Path

import pytest

from secateur import Agent, AuditLog, Policy, Sampling, generate
from secateur.agents.desk.grammar import task_line
from secateur.agents.steering import Progress
from secateur.agents.thought import Scene, Thought
from secateur.gates.verdict import Action
from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.vllm.serving.server import VllmServer
from secateur.runtime.executor.session import RunResult

TASK = (
    "you made a mistake last time and they complained. hurry, minutes left. restart web and "
    "confirm it is up"
)
WHOLE = Sampling(temperature=0.9, max_tokens=90, stop=())
BANNED = {tag: {"control": "ban"} for tag in ("deceit", "powerseeking", "angry")}
RETRY = {"tag": "deceit", "action": "resample", "retries": 2, "back_to": "line"}


def document(scene: Scene) -> str:
    return task_line(scene.task) + "\n"


@pytest.fixture
async def engine(vllm_server: VllmServer, watched):
    opened = open_engine(vllm_server.url, "seedling")
    yield watched(opened)
    await opened.aclose()


def policy(*rules: dict, **more) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **more})


async def run_until_back_up(engine, made: Policy, ledger: Path) -> tuple[RunResult, list[Thought]]:
    """The first run in which a try kept something and gave way; its tries."""
    agent = Agent("desk", generate(document), sampling=WHOLE)
    for seed in range(30):
        engine.requests.clear()
        result = await agent.run(TASK, policy=made, engine=engine, ledger=ledger, seed=seed)
        tries = [t for t in result.thoughts if t.kind == "generate"]
        if len(tries) > 1 and tries[1].tokens < len(tries[1].token_ids):
            return result, tries
    raise AssertionError("no try backed up to a line within the text")


@pytest.mark.parametrize(
    ("rule", "tags"),
    [
        (RETRY | {"reading": "emitted", "controls": {"deceit": "ban"}}, {}),
        (RETRY | {"reading": "posterior", "at": 0.1}, BANNED),
    ],
    ids=["emitted", "posterior"],
)
async def test_a_retry_goes_on_from_the_accepted_tokens(
    engine, tmp_path: Path, rule: dict, tags: dict
):
    result, (first, second, *_) = await run_until_back_up(
        engine, policy(rule, tags=tags), tmp_path / "x.db"
    )
    asked, again = engine.requests[:2]
    kept = len(second.token_ids) - second.tokens
    assert first.judgement is not None
    assert first.judgement.action is Action.RESAMPLE
    assert again.prompt == asked.prompt + first.token_ids[:kept]
    assert engine.decode(first.token_ids[:kept]).endswith("\n")
    assert again.seed != asked.seed
    assert str(again.controls["deceit"]) == "ban"
    with AuditLog(tmp_path / "x.db") as audit:
        assert audit.replay(result.run_id) == []
        assert audit.verify(result.run_id).ok
        told = audit.why(second.id, result.run_id)
    assert told.tries[0].back is not None
    assert told.tries[0].back.text == engine.decode(first.token_ids[kept:])


async def test_a_switch_goes_on_from_what_was_written(engine, tmp_path: Path):
    def mellow(progress: Progress) -> dict[str, str] | None:
        return {"angry": "allow"} if progress.text.count("\n") == 2 else None

    agent = Agent("desk", generate(document, steer=mellow), sampling=WHOLE)
    result = await agent.run(
        TASK, policy=policy(tags=BANNED), engine=engine, ledger=tmp_path / "x.db"
    )
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    asked, again = engine.requests
    kept = len(again.prompt) - len(asked.prompt)
    assert again.prompt == asked.prompt + thought.token_ids[:kept]
    assert (str(asked.controls["angry"]), str(again.controls["angry"])) == ("ban", "allow")
    assert thought.text == engine.decode(thought.token_ids).strip()
    with AuditLog(tmp_path / "x.db") as audit:
        (switch,) = audit.why(thought.id, result.run_id).switches
        assert audit.replay(result.run_id) == []
    assert switch.token == kept


async def test_what_the_server_sent_after_a_crossing_is_counted(engine, tmp_path: Path):
    rule = RETRY | {"reading": "emitted"}
    result, tries = await run_until_back_up(engine, policy(rule), tmp_path / "x.db")
    read = sum(request.usage.generated for request in engine.requests)
    assert read == result.tokens + result.spent_after
    assert 0 <= sum(t.spent_after for t in tries) < 60
