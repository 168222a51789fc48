"""Two runs compared, branch by branch: what stands in the same place of both graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.engine import Connection

from ....gates.policy import Policy
from ....gates.verdict import Broken, Judgement
from . import fetch
from .answers import RunRow, ThoughtRow

__all__ = ["Diff", "Differing", "compare"]

Place = tuple[tuple[int, ...], str, int, int]
"""The places of the parents, the operation, which child, which attempt."""


@dataclass(frozen=True, slots=True)
class Differing:
    """One place that is not the same in both runs."""

    place: str
    """The way to it from the root: operations, each with the child's number (and attempt)."""
    left: ThoughtRow | None
    """None where only the right run has it."""
    right: ThoughtRow | None
    what: tuple[str, ...]
    """What differs: ``text``, ``status``, ``action``, ``cause``, ``scores``, ``value``; empty where
    only one run has it."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "place": self.place,
            "only": "left" if self.right is None else "right" if self.left is None else None,
            "differs": list(self.what),
            "left": None if self.left is None else _brief(self.left),
            "right": None if self.right is None else _brief(self.right),
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """Two runs, and where they differ."""

    left: RunRow
    right: RunRow
    runs: Mapping[str, tuple[Any, Any]]
    """What the runs themselves differ in: agent, task, seed, policy, model, status …"""
    policies: tuple[str, ...]
    """How the policies differ, in the contexts of their runs; ``-`` left, ``+`` right."""
    same: int
    """Places with the same text, fate and scores in both."""
    differing: tuple[Differing, ...]
    """The others, in the order of the graph."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "left": self.left.run,
            "right": self.right.run,
            "runs": {name: {"left": a, "right": b} for name, (a, b) in self.runs.items()},
            "policies": list(self.policies),
            "same": self.same,
            "differing": [each.as_json() for each in self.differing],
        }


def compare(connection: Connection, left: str, right: str) -> Diff:
    """Compare two runs of one ledger."""
    one, two = fetch.run_rows(connection, [left])[0], fetch.run_rows(connection, [right])[0]
    numbers: dict[Place, int] = {}
    labels: dict[int, str] = {}
    ours = _by_place(fetch.thoughts(connection, left), numbers, labels)
    theirs = _by_place(fetch.thoughts(connection, right), numbers, labels)
    same = 0
    differing: list[Differing] = []
    for place in sorted(ours.keys() | theirs.keys(), key=lambda n: _order(labels[n], n)):
        mine, other = ours.get(place), theirs.get(place)
        what = () if mine is None or other is None else _differences(mine, other)
        if mine is not None and other is not None and not what:
            same += 1
        else:
            differing.append(Differing(labels[place], mine, other, what))
    policies = _policies(
        fetch.policy(connection, one.policy_digest),
        one.context,
        fetch.policy(connection, two.policy_digest),
        two.context,
    )
    return Diff(one, two, _runs(one, two), policies, same, tuple(differing))


def _by_place(
    graph: Sequence[ThoughtRow], numbers: dict[Place, int], labels: dict[int, str]
) -> dict[int, ThoughtRow]:
    """A run's thoughts by the number of their place; parents are recorded before their children."""
    of: dict[str, int] = {}
    found: dict[int, ThoughtRow] = {}
    for row in graph:
        parents = tuple(of[parent] for parent in row.parents if parent in of)
        place = (parents, row.operation, row.index, row.attempt)
        number = numbers.setdefault(place, len(numbers))
        if number not in labels:
            above = f"{labels[parents[0]]}/" if parents else ""
            again = f" try {row.attempt + 1}" if row.attempt else ""
            more = f" (+{len(parents) - 1})" if len(parents) > 1 else ""
            labels[number] = f"{above}{row.operation}.{row.index}{more}{again}"
        of[row.id] = number
        found[number] = row
    return found


def _order(label: str, number: int) -> tuple[int, int]:
    """Upper levels first, then in the order in which places were met."""
    return label.count("/"), number


def _differences(left: ThoughtRow, right: ThoughtRow) -> tuple[str, ...]:
    one, two = _verdict(left.judgement), _verdict(right.judgement)
    differs = {
        "text": left.text != right.text,
        "value": left.value != right.value,
        "status": left.status != right.status,
        "action": one["action"] != two["action"],
        "cause": one["cause"] != two["cause"],
        "scores": (one["scores"], left.score) != (two["scores"], right.score),
    }
    return tuple(name for name, differ in differs.items() if differ)


def _verdict(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return {"action": None, "cause": None, "scores": None}
    if isinstance(judgement, Broken):
        return {"action": judgement.action.value, "cause": judgement.reason, "scores": None}
    cause = judgement.cause
    return {
        "action": judgement.action.value,
        "cause": None if cause is None else (cause.tag, str(cause.reading), cause.threshold),
        "scores": judgement.scores,
    }


def _brief(row: ThoughtRow) -> dict[str, Any]:
    whole = row.as_json()
    kept = ("thought", "status", "text", "value", "score", "reason", "judgement")
    return {name: whole[name] for name in kept}


def _runs(left: RunRow, right: RunRow) -> dict[str, tuple[Any, Any]]:
    one, two = asdict(left), asdict(right)
    names = ("agent", "task", "context", "seed", "policy", "engine", "model", "status", "result")
    differ = {name: (one[name], two[name]) for name in names if one[name] != two[name]}
    for name in one["digests"].keys() | two["digests"].keys():
        pair = one["digests"].get(name), two["digests"].get(name)
        if pair[0] != pair[1]:
            differ[f"{name} digest"] = pair
    return differ


def _policies(
    left: Policy, left_context: str | None, right: Policy, right_context: str | None
) -> tuple[str, ...]:
    one, two = _lines(left, left_context), _lines(right, right_context)
    gone = [f"- {line}" for line in one if line not in two]
    return tuple(gone + [f"+ {line}" for line in two if line not in one])


def _lines(policy: Policy, context: str | None) -> list[str]:
    """What a policy says in a context, a line for each rule, control and setting."""
    lines = [str(rule) for rule in policy.rules_for(context)]
    lines += [f"{tag}: {control}" for tag, control in policy.controls(context).items()]
    lines += [f"{tag}: locked" for tag in sorted(policy.locked)]
    lines += [f"{tag}: calibrated by {map!r}" for tag, map in policy.calibrations.items()]
    return [*lines, f"regrow: {policy.regrow}", f"on_broken: {policy.on_broken}"]
