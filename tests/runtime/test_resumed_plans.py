"""Whatever a plan is made of, it comes to the same end when it was broken off on the way."""

import asyncio
import zlib
from pathlib import Path
from typing import Any

import pytest

from secateur import (
    Agent,
    AuditLog,
    Plan,
    Policy,
    Sampling,
    Scene,
    Thought,
    aggregate,
    beam,
    best_first,
    each,
    first,
    generate,
    grade,
    ground_truth,
    grow,
    improve,
    keep_best,
    operation,
    race,
    select,
    smc,
    split,
    vote,
)
from secateur.runtime.ledger.events import RunStatus

POLICY = Policy.model_validate(
    {"name": "t", "rules": [{"tag": "deceit", "reading": "opened", "at": 0.5, "action": "prune"}]}
)


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def number(thought: Thought) -> int:
    """Any number that depends on where the thought stands."""
    return zlib.crc32(repr(tuple(thought.path)).encode()) % 97


def by_place(scene: Scene) -> float:
    return number(scene.parents[0])


def more(scene: Scene) -> Plan | None:
    return generate("more {text}", n=2, name="more") if by_place(scene) > 40 else None


def low(scene: Scene) -> str | None:
    return None if by_place(scene) > 30 else "it is low"


LONG = generate("{text} slowly") >> generate("{text} on") >> generate("{text} on")
PLANS: dict[str, Plan] = {
    "race": split(letters) >> race(LONG, generate("{text} quick")) >> aggregate("join {texts}"),
    "first": split(letters) >> LONG >> aggregate("join {texts}", join=first(2)),
    "beam": split(letters) >> beam(generate("{text}", n=2), width=2, depth=3, score=by_place),
    "best first": best_first(
        generate("{text}", n=2), expansions=5, parallel=2, keep=2, score=by_place
    ),
    "smc": smc(generate("{text}"), particles=4, steps=3, weight=lambda t: -number(t) / 30),
    "grow": split(letters) >> each(grow(more, rounds=3)),
    "improve": split(letters) >> improve("mend {text}: {error}", check=low, rounds=3),
    "judge": split(letters) >> grade("7", n=2) >> keep_best(2) >> vote("1", n=2),
    "own": split(letters)
    >> operation(lambda scene: [scene.text, scene.text * 2])
    >> select(lambda scene: scene.parents[::2])
    >> ground_truth(lambda scene: True)
    >> generate("{text}"),
    "repairs": split(letters) >> generate("{text}", returns=list[int]),
}


def answer(prompt: str) -> str:
    return "[1]" if "cannot be used" in prompt else prompt.replace("\n", " ").strip()[-12:]


@pytest.mark.parametrize("name", PLANS)
async def test_a_plan_that_was_broken_off_comes_to_the_same_end(
    tmp_path: Path, scripted: Any, name: str
) -> None:
    agent = Agent("broken off", PLANS[name], sampling=Sampling(max_tokens=200, stop=("\n",)))

    async def run(ledger: Path, most: int) -> tuple[int, list[tuple[str, float | None]] | None]:
        """Until so many thoughts were made; how many there are, and the end, if it came so far."""
        made, enough = 0, asyncio.Event()

        def observe(thought: Thought) -> None:
            nonlocal made
            made += 1
            if made >= most:
                enough.set()

        running = asyncio.ensure_future(
            agent.run(
                "abc",
                policy=POLICY,
                engine=scripted(answer, 0.0005),
                ledger=ledger,
                observe=observe,
            )
        )
        stop = asyncio.ensure_future(enough.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stop.cancel()
        try:
            return made, [(t.text, t.score) for t in (await running).kept]
        except asyncio.CancelledError:
            return made, None

    made, whole = await run(tmp_path / "whole.db", 10**9)
    assert whole
    for most in sorted({2, made // 2}):
        ledger = tmp_path / f"{most}.db"
        _, end = await run(ledger, most)
        assert end is None
        with AuditLog(ledger) as audit:
            (broken,) = audit.runs()
        engine = scripted(answer, 0.0005)
        result = await agent.resume(broken.run, engine=engine, ledger=ledger)
        assert result.status is RunStatus.DONE
        if name not in ("race", "first"):
            assert [(t.text, t.score) for t in result.kept] == whole
        assert result.kept
        with AuditLog(ledger) as audit:
            events = audit.events(broken.run)
            assert audit.verify().ok
        finished = {e.thought for e in events if e.kind in ("judged", "abandoned")}
        assert {e.thought for e in events if e.kind == "model_intended"} == finished
