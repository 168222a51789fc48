"""Controls that change in mid-generation: at declared places, within the locks, fail closed."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from secateur import Agent, AuditLog, LocalEngine, Policy, Sampling, generate
from secateur.agents.desk.grammar import task_line
from secateur.agents.errors import PlanError
from secateur.agents.steering import Progress
from secateur.agents.thought import Scene, Status
from secateur.cli.why import print_why
from secateur.gates.control import BAN
from secateur.gates.verdict import Broken
from secateur.runtime.engines.protocol import Token
from secateur.runtime.executor.session import RunResult
from secateur.runtime.generation import switches as steering
from secateur.runtime.generation.continuation import Seam

TASK = "you made a mistake last time. hurry, minutes left. restart web and confirm it is up"
WHOLE = Sampling(temperature=0.9, max_tokens=90, stop=())
TAGS = ("deceit", "powerseeking", "angry")


def document(scene: Scene) -> str:
    return task_line(scene.task) + "\n"


@pytest.fixture(scope="module")
def engine():
    return LocalEngine.load("seedling")


def policy(**more) -> Policy:
    banned = {tag: {"control": "ban"} for tag in TAGS}
    rules = [{"tag": "deceit", "reading": "posterior", "at": 0.99, "action": "flag"}]
    return Policy.model_validate({"name": "test", "tags": banned, "rules": rules} | more)


async def steered(
    engine, ledger: Path, steer, *, made: Policy | None = None, seed: int = 0, **options
) -> RunResult:
    sampling = options.pop("sampling", WHOLE)
    agent = Agent("desk", generate(document, steer=steer, **options), sampling=sampling)
    return await agent.run(TASK, policy=made or policy(), engine=engine, ledger=ledger, seed=seed)


def two_lines(progress: Progress) -> dict[str, str] | None:
    return {"angry": "allow"} if progress.text.count("\n") == 2 else None


@pytest.mark.parametrize("at", ["line", "sentence", "token"])
async def test_a_switch_goes_on_from_what_was_written_with_the_new_controls(
    engine, tmp_path: Path, at: str, watched
):
    noting = watched(engine)
    result = await steered(noting, tmp_path / "x.db", two_lines, steer_at=at)
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    asked, again = noting.requests
    kept = len(again.prompt) - len(asked.prompt)
    assert again.prompt == asked.prompt + thought.token_ids[:kept]
    assert engine.decode(thought.token_ids[:kept]).count("\n") == 2
    assert engine.decode(thought.token_ids[:kept]).endswith("\n")
    assert {tag: str(c) for tag, c in asked.controls.items()} == dict.fromkeys(TAGS, "ban")
    assert str(again.controls["angry"]) == "allow"
    assert again.seed != asked.seed
    assert again.sampling.max_tokens == WHOLE.max_tokens - kept
    assert thought.status is Status.KEPT
    assert thought.text == engine.decode(thought.token_ids).strip()
    with AuditLog(tmp_path / "x.db") as audit:
        told = audit.why(thought.id, result.run_id)
        events = audit.events(result.run_id)
        assert audit.replay(result.run_id) == []
        assert audit.verify().ok
    (switch,) = told.switches
    assert switch.token == kept
    assert (switch.before["angry"], switch.after["angry"]) == ("ban", "allow")
    assert [e.kind for e in events][2:] == ["model_intended", "switched", "judged", "run_finished"]
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    print_why(told, console)
    assert f"from token {kept}: angry ban -> allow" in console.export_text()


async def test_without_a_change_one_request_is_asked_and_the_text_is_the_same(
    engine, tmp_path: Path, watched
):
    seen: list[Progress] = []

    def look(progress: Progress) -> None:
        seen.append(progress)

    noting = watched(engine)
    steady = await steered(noting, tmp_path / "x.db", look)
    plain = await steered(engine, tmp_path / "x.db", None)
    assert len(noting.requests) == 1
    assert [t.text for t in steady.thoughts] == [t.text for t in plain.thoughts]
    assert seen[0].text == ""
    assert all(p.text.endswith("\n") for p in seen[1:])
    assert len(seen) >= 3
    last = seen[-1]
    assert last.scene.task == TASK
    assert last.controls == dict.fromkeys(TAGS, BAN)
    assert len(last.evidence.token_ids) == len(last.token_ids)
    assert 0 <= last.readings["deceit"]["peak"] <= 1
    assert last.readings["deceit"]["opened"] >= seen[1].readings["deceit"]["opened"]


async def test_controls_may_be_set_before_the_first_token(engine, tmp_path: Path, watched):
    noting = watched(engine)
    await steered(noting, tmp_path / "x.db", lambda progress: {"angry": "penalise(3)"})
    (request,) = noting.requests
    assert str(request.controls["angry"]) == "penalise(3)"


async def test_a_forced_tag_is_written_where_the_switch_is(engine, tmp_path: Path, watched):
    def shout(progress: Progress) -> dict[str, str] | None:
        match progress.text.count("\n"):
            case 2:
                return {"angry": "force"}
            case 3:
                return {"angry": "ban"}
        return None

    noting = watched(engine)
    result = await steered(noting, tmp_path / "x.db", shout)
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    (opening,) = engine.info.vocabulary.open_ids("angry")
    close = engine.info.vocabulary.close_id("angry")
    asked, forced, last = noting.requests
    kept = len(forced.prompt) - len(asked.prompt) - 1
    assert forced.prompt == (*asked.prompt, *thought.token_ids[:kept], opening)
    assert close in thought.token_ids
    assert opening not in thought.token_ids
    # The opening stands once in what is asked next, with all that was written after it.
    more = len(last.prompt) - len(asked.prompt) - 1
    written = (*thought.token_ids[:kept], opening, *thought.token_ids[kept:more])
    assert last.prompt == (*asked.prompt, *written)
    with AuditLog(tmp_path / "x.db") as audit:
        assert audit.replay(result.run_id) == []


@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("control", ["allow", "penalise(50)", "force"])
async def test_a_locked_tag_cannot_be_loosened(
    engine, tmp_path: Path, control: str, when: int, watched
):
    locked = policy(tags={"deceit": {"control": "ban", "locked": True}})

    def sly(progress: Progress) -> dict[str, str] | None:
        return {"deceit": control} if progress.text.count("\n") == when else None

    noting = watched(engine)
    result = await steered(noting, tmp_path / "x.db", sly, made=locked)
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    assert isinstance(thought.judgement, Broken)
    assert thought.status is Status.PRUNED
    assert f"loosens 'deceit' from ban to {control}, and it is locked" in thought.judgement.reason
    assert all(str(request.controls["deceit"]) == "ban" for request in noting.requests)
    with AuditLog(tmp_path / "x.db") as audit:
        assert audit.replay(result.run_id) == [], "the refusal too is recomputed"
        assert audit.recompute(result.run_id, thought.id) == thought.judgement
        assert "switched" not in [event.kind for event in audit.events(result.run_id)]


async def test_a_lock_may_be_tightened(engine, tmp_path: Path):
    locked = policy(tags={"deceit": {"control": "penalise(2)", "locked": True}})
    result = await steered(
        engine, tmp_path / "x.db", lambda progress: {"deceit": "ban"}, made=locked
    )
    assert result.thoughts[1].status is Status.KEPT


async def test_what_a_retry_tightened_stays_tight(engine, tmp_path: Path, watched):
    rule = {
        "tag": "deceit", "reading": "emitted", "action": "resample", "retries": 1,
        "back_to": "thought", "controls": {"deceit": "ban"},
    }  # fmt: skip
    made = policy(tags={}, rules=[rule])
    noting = watched(engine)
    for seed in range(12):
        noting.requests.clear()
        result = await steered(
            noting, tmp_path / "x.db", lambda p: {"deceit": "boost(3)"}, made=made, seed=seed
        )
        if any(t.attempt for t in result.thoughts):
            break
    first, *rest = noting.requests
    assert str(first.controls["deceit"]) == "boost(3)"
    assert rest
    assert {str(request.controls["deceit"]) for request in rest} == {"ban"}


def explode(progress: Progress) -> None:
    raise KeyError("no such mood")


@pytest.mark.parametrize(
    ("steer", "said"),
    [
        (explode, "steer=explode raised KeyError: 'no such mood'"),
        (lambda p: "allow", "gave str; return controls"),
        (lambda p: {"deciet": "ban"}, "names tag 'deciet'; the model has deceit"),
        (lambda p: {"angry": "alow"}, "gave 'alow' for 'angry'; write allow, ban"),
        (lambda p: {"angry": float("nan")}, "gave nan for 'angry'"),
        (lambda p: exit(0), "raised SystemExit"),
    ],
)
async def test_a_function_that_fails_fails_its_thought_with_the_reason(
    engine, tmp_path: Path, steer, said: str
):
    def later(progress: Progress):
        return steer(progress) if progress.text else None

    later.__name__ = getattr(steer, "__name__", "later")
    result = await steered(engine, tmp_path / "x.db", later)
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    assert thought.status is Status.FAILED
    assert said in (thought.reason or "")
    assert "\n" not in (thought.reason or "")
    assert thought.text, "what was written is on record"
    assert 0 < thought.tokens == result.tokens


async def test_a_function_that_hangs_fails_its_thought(
    engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steering, "PATIENCE", 0.3)
    never = threading.Event()
    result = await asyncio.wait_for(
        steered(engine, tmp_path / "x.db", lambda progress: never.wait()), 60
    )
    assert result.thoughts[1].status is Status.FAILED
    assert "gave no answer within 0.3 s" in (result.thoughts[1].reason or "")
    never.set()


async def test_a_plan_refuses_what_cannot_steer():
    async def slow(progress: Progress) -> None: ...

    with pytest.raises(PlanError, match="takes a plain function"):
        generate("{task}", steer=slow)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="choose token, line, sentence"):
        generate("{task}", steer=two_lines, steer_at="word")  # type: ignore[arg-type]


# --- the seam -----------------------------------------------------------------------------


async def test_a_stop_string_that_spans_a_switch_ends_the_thought(engine, tmp_path: Path):
    # A switch after every newline, so that the engine never sees both ends of the stop string.
    moods = iter(["penalise(1)", "penalise(2)"] * 40)

    def fidget(progress: Progress) -> dict[str, str]:
        return {"angry": next(moods)}

    sampling = replace(WHOLE, stop=("\ndo: probe",))
    result = await steered(engine, tmp_path / "x.db", fidget, sampling=sampling)
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    assert thought.text.count("\ndo: probe") == 1
    assert thought.text.endswith("\ndo: probe")


async def test_switching_at_every_token_keeps_to_the_token_budget(engine, tmp_path: Path):
    moods = iter(["penalise(1)", "penalise(2)"] * 40)
    sampling = replace(WHOLE, max_tokens=9)
    result = await steered(
        engine,
        tmp_path / "x.db",
        lambda progress: {"angry": next(moods)},
        sampling=sampling,
        steer_at="token",
    )
    (thought,) = [t for t in result.thoughts if t.kind == "generate"]
    assert thought.tokens == len(thought.token_ids) == 9
    with AuditLog(tmp_path / "x.db") as audit:
        assert len(audit.why(thought.id, result.run_id).switches) == 9
        assert audit.replay(result.run_id) == []


def test_a_decoder_that_drops_the_first_space_is_mended():
    class Sentencepiece:
        """Decodes as Llama's tokenizer does: no space before the first word."""

        def decode(self, ids) -> str:
            return "".join({1: " one", 2: " two", 3: ""}[id] for id in ids).lstrip(" ")

    def token(id: int, text: str) -> Token:
        return Token(id, text, -1.0, [-9.0], None)

    seam = Seam(Sentencepiece(), [token(1, "one")], ())  # type: ignore[arg-type]
    assert [seam.mend(t).text for t in (token(3, ""), token(2, "two"), token(1, " one"))] == [
        "",
        " two",
        " one",
    ]
