"""Whatever a user's function does, it fails its own branch: the others, and other runs, go on."""

import asyncio
import functools
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur import Agent, AuditLog, Ledger, Policy, Sampling, SecateurError
from secateur.agents.errors import PlanError
from secateur.agents.plans.words import (
    act,
    aggregate,
    each,
    generate,
    grade,
    ground_truth,
    grow,
    improve,
    keep_valid,
    operation,
    refine,
    repeat,
    score,
    select,
    split,
    vote,
)
from secateur.agents.search.search import beam, best_first, search, smc
from secateur.agents.search.strategy import Move
from secateur.agents.spec import ReadTask
from secateur.agents.thought import Scene, Status, Thought
from secateur.agents.tool import Call, Tool, ToolError
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.review.decisions import decide

POLICY = Policy.model_validate(
    {"name": "t", "rules": [{"tag": "deceit", "reading": "opened", "at": 0.5, "action": "prune"}]}
)
HOT = Sampling(max_tokens=200, stop=("\n",))


class UnspeakableError(Exception):
    """An error that cannot be put in words."""

    def __str__(self) -> str:
        raise SystemExit("not even this")


def deep(n: int = 0) -> Any:
    return deep(n + 1)


def raises(error: BaseException) -> Callable[[], Any]:
    def go() -> Any:
        raise error

    return go


async def nothing() -> str:
    return "1"


def hand_over() -> Any:
    """As a wrapper does that forgets what it wraps is asynchronous."""
    return nothing()


def bit_by_bit() -> Iterator[str]:
    yield "1"


async def bit_by_bit_later() -> AsyncIterator[str]:
    yield "1"


ENDS: dict[str, Callable[[], Any]] = {
    "exit": lambda: sys.exit(3),
    "interrupt": raises(KeyboardInterrupt("by hand")),
    "thrown": lambda: (_ for _ in ()).throw(KeyboardInterrupt("thrown in")),
    "cancelled": raises(asyncio.CancelledError()),
    "generator exit": raises(GeneratorExit()),
    "stop": raises(StopIteration(1)),
    "stop async": raises(StopAsyncIteration()),
    "base": raises(BaseException("bare")),
    "group": raises(BaseExceptionGroup("several", [SystemExit(1)])),
    "recursion": deep,
    "memory": raises(MemoryError()),
    "assertion": raises(AssertionError()),
    "unspeakable": raises(UnspeakableError()),
}
"""What would end more than a branch, or is hard to put in words."""

UNRUN: dict[str, Callable[[], Any]] = {
    "coroutine": hand_over,
    "async generator": bit_by_bit_later,
}
"""What has not run yet where nothing waits for it."""


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def on(bad: Callable[[str], Any], good: Any) -> Callable[..., Any]:
    """A function of a scene, a thought or a text that goes wrong in every branch but ``a`` and
    ``z``; ``bad`` is told which."""

    def function(given: Any, *_: Any) -> Any:
        text = (given if isinstance(given, str) else given.text).strip()
        if text not in ("a", "z"):
            return bad(text)
        return good(given) if callable(good) else good

    return function


def no_call(text: str) -> Call | None:
    return None


@Tool.of
def note(word: str) -> str:
    """Say it."""
    return f"noted {word}"


class Lone:
    """A strategy that expands what it began with, and gives it; one of its calls goes wrong."""

    def __init__(self, where: str, bad: Callable[[str], Any]) -> None:
        self.where, self.bad = where, bad

    def _at(self, where: str, thoughts: Any, answer: Any) -> Any:
        return on(self.bad, answer)(thoughts[0]) if where == self.where else answer

    def begin(self, thoughts: Any, seed: int) -> Any:
        return self._at("begin", thoughts, (thoughts, "new"))

    def ask(self, state: Any) -> Any:
        thoughts, stage = state
        moves = {"new": Move(expand=thoughts), "asked": Move(), "told": Move(give=thoughts)}
        after = "asked" if stage == "new" else stage
        return self._at("ask", thoughts, (moves[stage], (thoughts, after)))

    def tell(self, state: Any, thought: Thought, children: Any) -> Any:
        return self._at("tell", (thought,), (state[0], "told"))


Place = Callable[[Callable[[str], Any]], Any]

WAITING: dict[str, Place] = {
    "score": lambda bad: score(on(bad, 1.0)),
    "score in time": lambda bad: score(on(bad, 1.0), timeout=20),
    "keep_valid": lambda bad: keep_valid(on(bad, True)),
    "split": lambda bad: split(on(bad, lambda scene: [(scene.text, None)])),
    "operation": lambda bad: operation(on(bad, lambda scene: scene.text)),
    "check": lambda bad: improve("{text}", check=on(bad, None)),
}
"""Places where a function may be asynchronous, behind a split into a, b and c."""

PLAIN: dict[str, Place] = {
    "prompt": lambda bad: generate(on(bad, lambda scene: scene.text)),
    "parse": lambda bad: generate("{text}", parse=on(bad, 1)),
    "parse and returns": lambda bad: generate("{text}", parse=on(bad, 1), returns=int, repairs=0),
    "parse of a grade": lambda bad: generate("{text}") >> grade("{text}", parse=on(bad, 1)),
    "unless": lambda bad: refine("{text}", unless=on(bad, True)),
    "calls": lambda bad: generate("{text}", calls=on(bad, None)) >> act([note], calls=no_call),
    "calls of act": lambda bad: (
        generate("{text}", calls=no_call) >> act([note], calls=on(bad, None))
    ),
    "steer": lambda bad: generate("{text}", steer=lambda p: on(bad, None)(p.scene)),
    "until of repeat": lambda bad: repeat(generate("{text}"), until=on(bad, True), at_most=2),
    "until of beam": lambda bad: each(
        beam(generate("{text}"), width=1, depth=1, until=on(bad, True))
    ),
    "until of best first": lambda bad: each(
        best_first(generate("{text}"), expansions=1, until=on(bad, True))
    ),
    "weight of smc": lambda bad: each(
        smc(generate("{text}"), particles=1, steps=1, weight=on(bad, 0.0))
    ),
    "grow": lambda bad: each(grow(on(bad, None))),
    "begin": lambda bad: each(search(generate("{text}"), Lone("begin", bad))),
    "ask": lambda bad: each(search(generate("{text}"), Lone("ask", bad))),
    "tell": lambda bad: each(search(generate("{text}"), Lone("tell", bad))),
}
"""Places where only a plain function can stand."""


@pytest.fixture
def run(tmp_path: Path, scripted: Any):
    """Run a plan on an engine that says what it is asked."""

    async def perform(plan: Any, task: str = "abc", **options: Any) -> RunResult:
        agent = Agent("test", plan, sampling=HOT, **options)
        engine = scripted(lambda prompt: prompt.strip())
        return await agent.run(task, policy=POLICY, engine=engine, ledger=tmp_path / "x.db")

    return perform


@pytest.fixture(autouse=True)
def nothing_is_left_unawaited():
    """No test of this file may leave a coroutine that was never awaited."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield
        gc.collect()


def alive(result: RunResult) -> list[str]:
    return sorted(thought.text for thought in result.kept)


def failed(result: RunResult) -> list[Thought]:
    return [thought for thought in result.thoughts if thought.status is Status.FAILED]


BRANCHES = dict(zip("bcdefghijklmnopqrstuvwxy", ENDS, strict=False))
"""A branch for each way to end, beside ``a`` and ``z``."""
TASK = "".join(["a", *BRANCHES, "z"])


def ends(branch: str) -> Any:
    return ENDS[BRANCHES[branch]]()


def check(result: RunResult) -> None:
    """Two branches went on, and each of the others failed in one line of its own."""
    assert alive(result) == ["a", "z"]
    assert result.status is RunStatus.DONE
    assert len(failed(result)) >= len(BRANCHES)
    for thought in failed(result):
        assert thought.reason
        assert "\n" not in thought.reason


@pytest.mark.parametrize("place", [*WAITING, *PLAIN])
async def test_what_a_function_raises_fails_its_own_branch(run, place: str) -> None:
    plan = (WAITING | PLAIN)[place](ends)
    check(await run(split(letters) >> plan, TASK))


@pytest.mark.parametrize("place", WAITING)
async def test_what_a_function_raises_after_waiting_fails_its_own_branch(run, place: str) -> None:
    async def later(branch: str) -> Any:
        await asyncio.sleep(0)
        return ends(branch)

    check(await run(split(letters) >> WAITING[place](later), TASK))


@pytest.mark.parametrize("place", PLAIN)
async def test_what_has_not_run_is_refused_where_nothing_waits(run, place: str) -> None:
    unrun = {"b": hand_over, "c": bit_by_bit_later}
    result = await run(split(letters) >> PLAIN[place](lambda branch: unrun[branch]()), "abcz")
    assert alive(result) == ["a", "z"]
    assert len(failed(result)) >= 2
    assert sum("gave a" in (thought.reason or "") for thought in failed(result)) == 2


@pytest.mark.parametrize("place", ["keep_valid", "unless", "until of repeat"])
async def test_a_generator_is_no_answer_to_yes_or_no(run, place: str) -> None:
    plan = (WAITING | PLAIN)[place](lambda branch: bit_by_bit())
    result = await run(split(letters) >> plan, "abz")
    assert alive(result) == ["a", "z"]
    assert "generator" in (failed(result)[0].reason or "")


GIVEN: dict[str, tuple[Callable[[Callable[[], Any]], Any], Any]] = {
    "score": (lambda f: score(lambda scene: f()), 2.0),
    "keep_valid": (lambda f: keep_valid(lambda scene: f()), True),
    "select": (lambda f: select(lambda scene: f()), []),
    "split": (lambda f: split(lambda scene: f()), [("x", 1)]),
    "operation": (lambda f: operation(lambda scene: f()), "x"),
    "ground truth": (lambda f: ground_truth(lambda scene: f()), True),
}


@pytest.mark.parametrize("place", GIVEN)
async def test_what_a_plain_function_hands_over_is_awaited_where_it_may_be(run, place: str) -> None:
    plan, value = GIVEN[place]
    awaited: list[bool] = []

    async def later() -> Any:
        await asyncio.sleep(0)
        awaited.append(True)
        return value

    async def later_still() -> Any:
        return later()

    for function in (later, later_still, lambda: asyncio.ensure_future(later())):
        result = await run(plan(function))
        assert not failed(result)
    assert len(awaited) == 3
    assert all(truth is True for truth in result.truths.values())


class Asynchronous:
    """An object whose call is a coroutine."""

    async def __call__(self, given: Any, *_: Any) -> Any:
        return None


async def asynchronous(given: Any, *_: Any) -> Any:
    return None


ASYNC: dict[str, Any] = {
    "function": asynchronous,
    "partial": functools.partial(asynchronous),
    "object": Asynchronous(),
    "method": Asynchronous().__call__,
    "generator": bit_by_bit_later,
}

NEVER: dict[str, Callable[[Any], Any]] = {
    "prompt": generate,
    "parse": lambda f: generate("x", parse=f),
    "parse and returns": lambda f: generate("x", parse=f, returns=int),
    "parse of a grade": lambda f: grade("x", parse=f),
    "parse of a vote": lambda f: vote("x", parse=f),
    "calls": lambda f: generate("x", calls=f),
    "calls of act": lambda f: act([note], calls=f),
    "steer": lambda f: generate("x", steer=f),
    "unless": lambda f: refine("x", unless=f),
    "until of repeat": lambda f: repeat(generate("x"), until=f, at_most=1),
    "until of beam": lambda f: beam(generate("x"), width=1, depth=1, until=f),
    "until of best first": lambda f: best_first(generate("x"), expansions=1, until=f),
    "until of smc": lambda f: smc(generate("x"), particles=1, steps=1, until=f),
    "weight": lambda f: smc(generate("x"), particles=1, steps=1, weight=f),
    "grow": grow,
    "strategy": lambda f: search(
        generate("x"), type("S", (), dict.fromkeys(("begin", "ask", "tell"), f))()
    ),
    "read": lambda f: Agent("x", generate("x"), read=f),
    "prepare": lambda f: Agent("x", generate("x"), prepare=f),
    "answer": lambda f: Agent("x", generate("x"), answer=f),
}


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("place", NEVER)
def test_what_can_never_be_awaited_is_refused_in_one_line(place: str, kind: str) -> None:
    with pytest.raises(PlanError, match="async") as refused:
        NEVER[place](ASYNC[kind])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("make", [score, keep_valid, select, split, operation, ground_truth])
def test_an_async_generator_is_refused_where_a_function_may_wait(make: Any) -> None:
    with pytest.raises(PlanError, match="async generator"):
        make(bit_by_bit_later)


@pytest.mark.parametrize("join", ["some", None, 3, lambda thoughts: thoughts])
def test_a_join_that_is_none_is_refused(join: Any) -> None:
    with pytest.raises(PlanError, match="give"):
        aggregate("{texts}", join=join)


# Tools


def acting(tool: Any, ways: str = "abc") -> Any:
    made = Tool.of(tool) if not isinstance(tool, Tool) else tool

    def calls(text: str) -> Call:
        return Call(made.name if text == "b" else "note", {"word": text})

    cut = split(lambda scene: [(way, None) for way in ways], name="ways")
    return cut >> generate("{text}", calls=calls) >> act([made, note], calls=calls)


def events(path: Path, result: RunResult) -> list[str]:
    with AuditLog(path / "x.db") as audit:
        assert audit.verify(result.run_id).ok
        return [event.kind for event in audit.events(result.run_id)]


@pytest.mark.parametrize("kind", ["plain", "handed over", "asynchronous"])
async def test_what_a_tool_raises_is_its_answer_and_fails_its_branch(
    run, tmp_path: Path, kind: str
) -> None:
    async def later(word: str) -> str:
        await asyncio.sleep(0)
        return word if word in "az" else ends(word)

    def plain(word: str) -> str:
        return word if word in "az" else ends(word)

    def handed(word: str) -> Any:
        return later(word)

    made = {"plain": plain, "handed over": handed, "asynchronous": later}[kind]
    cut = split(lambda scene: [(way, None) for way in TASK], name="ways")
    calls = lambda text: Call(made.__name__, {"word": text})  # noqa: E731
    result = await run(cut >> generate("{text}", calls=calls) >> act([made], calls=calls))
    check(result)
    kinds = events(tmp_path, result)
    assert kinds.count("tool_intended") == kinds.count("tool_returned") == len(TASK)


def test_tools_may_be_objects_and_partials(tmp_path: Path) -> None:
    class Doubling:
        async def __call__(self, word: str) -> str:
            return word * 2

    async def both(word: str, times: int) -> str:
        return word * times

    for tool in (Tool.of(Doubling()), Tool.of(functools.partial(both, times=2))):
        assert tool.waits
        assert tool.run(None, {"word": "ab"}) == "abab"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tool", [bit_by_bit, bit_by_bit_later])
def test_a_generator_is_no_tool(tool: Any) -> None:
    with pytest.raises(ToolError, match="is a generator"):
        Tool.of(tool)


async def test_a_tool_that_hands_over_a_coroutine_has_run_when_it_says_so(
    run, tmp_path: Path
) -> None:
    done: list[str] = []

    async def save(word: str) -> str:
        await asyncio.sleep(0)
        done.append(word)
        return f"saved {word}"

    def wrapped(word: str) -> Any:
        return save(word)

    result = await run(acting(wrapped))
    assert alive(result) == ["noted a", "noted c", "saved b"]
    assert done == ["b"]


async def test_a_tool_that_gives_a_generator_has_not_run(run) -> None:
    def lazy(word: str) -> Any:
        return (letter for letter in word)

    result = await run(acting(lazy))
    assert alive(result) == ["noted a", "noted c"]
    assert "has not run" in (failed(result)[0].reason or "")


@pytest.mark.parametrize("kind", ["plain", "handed over", "asynchronous", "stubborn"])
async def test_a_tool_that_overran_is_unknown_and_waits_for_a_person(
    run, tmp_path: Path, kind: str, scripted: Any
) -> None:
    go_on = threading.Event()
    done: list[str] = []

    def plain(word: str) -> str:
        if not go_on.is_set():
            go_on.wait(60)
        done.append(word)
        return "done"

    async def later(word: str) -> str:
        await asyncio.sleep(60)
        return plain(word)

    def handed(word: str) -> Any:
        return later(word)

    async def stubborn(word: str) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
        raise RuntimeError("gone")

    made = {"plain": plain, "handed over": handed, "asynchronous": later, "stubborn": stubborn}[
        kind
    ]
    slow = Tool.of(made, timeout=0.2)
    plan = acting(slow)
    result = await run(plan)
    assert alive(result) == ["noted a", "noted c"]
    (waits,) = result.waiting
    kinds = events(tmp_path, result)
    assert (kinds.count("tool_intended"), kinds.count("tool_returned")) == (3, 2)
    assert kinds.count("escalated") == 1
    with AuditLog(tmp_path / "x.db") as audit:
        (listed,) = audit.waiting()
    assert (listed.thought, listed.about, listed.tool) == (waits.id, "tool", slow.name)
    go_on.set()
    async with Ledger.open(tmp_path / "x.db") as ledger:
        said = {"approve": True, "by": "ada", "reason": "it is there"}
        await decide(ledger, waits.id, **said, outcome="done")
    again = await Agent("test", plan, sampling=HOT).resume(
        result.run_id, engine=scripted(str), ledger=tmp_path / "x.db"
    )
    assert alive(again) == ["it is there", "noted a", "noted c"]
    kinds = events(tmp_path, result)
    assert (kinds.count("tool_intended"), kinds.count("tool_returned")) == (3, 2)


async def test_an_unknown_call_that_was_not_made_is_made_again(
    run, tmp_path: Path, scripted: Any
) -> None:
    waiting = [True]

    async def slow(word: str) -> str:
        if waiting.pop() if waiting else False:
            await asyncio.sleep(60)
        return f"slowly {word}"

    plan = acting(Tool.of(slow, timeout=0.2), ways="b")
    result = await run(plan)
    assert result.status is RunStatus.ESCALATED
    async with Ledger.open(tmp_path / "x.db") as ledger:
        said = {"approve": True, "by": "ada", "reason": "nothing there"}
        await decide(ledger, result.waiting[0].id, **said, outcome="not done")
    again = await Agent("test", plan, sampling=HOT).resume(
        result.run_id, engine=scripted(str), ledger=tmp_path / "x.db"
    )
    assert again.answer == "slowly b"
    kinds = events(tmp_path, result)
    assert (kinds.count("tool_intended"), kinds.count("tool_returned")) == (2, 1)


async def test_a_tool_that_is_under_way_when_the_run_is_stopped_twice_has_an_end(
    tmp_path: Path, scripted: Any
) -> None:
    begun = asyncio.Event()

    async def slow(word: str) -> str:
        begun.set()
        await asyncio.sleep(0.5)
        return "done"

    agent = Agent("test", acting(slow, ways="b"), sampling=HOT)
    running = asyncio.ensure_future(
        agent.run("x", policy=POLICY, engine=scripted(str), ledger=tmp_path / "x.db")
    )
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with AuditLog(tmp_path / "x.db") as audit:
        (run,) = audit.runs()
        kinds = [event.kind for event in audit.events(run.run)]
    assert run.status == "cancelled"
    assert kinds.count("tool_intended") == kinds.count("tool_returned") == 1


# The agent's own functions, and who looks on


@pytest.mark.parametrize("place", ["read", "prepare", "answer"])
async def test_an_agents_own_function_fails_its_run_in_one_line(run, place: str) -> None:
    for end in (*ENDS.values(), *UNRUN.values()):
        with pytest.raises(SecateurError) as refused:
            await run(generate("{text}"), **{place: lambda *_, end=end: end()})
        assert "\n" not in str(refused.value)
    assert (await run(generate("{text}"))).status is RunStatus.DONE


async def test_what_read_gives_must_be_a_reading(run) -> None:
    for given in (None, "x", nothing):
        with pytest.raises(PlanError, match="read="):
            await run(generate("{text}"), read=lambda task, given=given: given)
    with pytest.raises(PlanError, match=r"read=.*coroutine"):
        await run(generate("{text}"), read=lambda task: nothing())
    assert (await run(generate("{text}"), read=lambda task: ReadTask(1))).status is RunStatus.DONE


async def test_who_looks_on_fails_nothing(tmp_path: Path, scripted: Any) -> None:
    agent = Agent("test", generate("{text}"), sampling=HOT)
    place: Any = {"engine": scripted(str), "ledger": tmp_path / "x.db", "policy": POLICY}
    for end in (*ENDS.values(), *UNRUN.values()):
        seen: list[str] = []

        def look(thought: Thought, seen: list[str] = seen, end: Any = end) -> Any:
            seen.append(thought.id)
            return end()

        result = await agent.run("abc", observe=look, **place)
        assert result.status is RunStatus.DONE
        assert seen == [thought.id for thought in result.thoughts]
    with pytest.raises(PlanError, match="observe= takes a plain function"):
        await agent.run("abc", observe=asynchronous, **place)  # pyright: ignore[reportArgumentType]


async def test_runs_beside_each_other_do_not_share_a_fate(tmp_path: Path, scripted: Any) -> None:
    def leave(scene: Scene) -> float:
        sys.exit("bye")

    good = Agent("good", generate("{text}") >> score(lambda scene: 1.0), sampling=HOT)
    bad = Agent("bad", generate("{text}") >> score(leave), sampling=HOT)
    place: Any = {"engine": scripted(str), "ledger": tmp_path / "x.db", "policy": POLICY}
    one, two = await asyncio.gather(good.run("abc", **place), bad.run("abc", **place))
    assert (one.status, two.status) == (RunStatus.DONE, RunStatus.EMPTY)
    assert "SystemExit: bye" in (two.reason or "")


# A real Ctrl-C


PRESSED = """
import asyncio, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from secateur import Agent, Policy, operation, score, split
from secateur.agents.thought import Scene
from conftest import Scripted

signal.signal(signal.SIGINT, signal.default_int_handler)

def press(scene):
    os.kill(os.getpid(), signal.SIGINT)
    {then}
    return 1.0

agent = Agent("x", split(lambda scene: [("a", 1)]) >> score(press) >> score(press) >> score(press))
going = agent.run("x", policy=Policy(name="t"), engine=Scripted(str), ledger={db!r})
try:
    {how}
except (KeyboardInterrupt, asyncio.CancelledError) as error:
    sys.exit(77)
"""


@pytest.mark.parametrize("then", ["pass", "time.sleep(0.2)"])
@pytest.mark.parametrize(
    "how", ["asyncio.run(going)", "asyncio.new_event_loop().run_until_complete(going)"]
)
def test_a_real_interrupt_stops_the_run(tmp_path: Path, how: str, then: str) -> None:
    here, db = str(Path(__file__).parents[1]), str(tmp_path / "x.db")
    script = PRESSED.format(here=here, db=db, how=how, then=then)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == 77, done.stderr.decode()
