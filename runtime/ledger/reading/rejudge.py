"""Whole runs judged again, by their own policy or by another; in several processes, if wanted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy.engine import URL, Connection

from ....gates.errors import PolicyError, SecateurError
from ....gates.evidence import Evidence
from ....gates.policy import Policy
from ....gates.unicode import well_formed
from ....gates.verdict import Judgement
from .. import connect
from ..chain import event_hash, from_text
from ..errors import LedgerError
from ..judgements import approvals_from_json, judgement_from_json
from ..parallel import side_by_side
from ..text import text_of
from . import fetch
from .replay import Bound, Flip, Replay, Stored

__all__ = ["in_processes", "replay", "replay_if_fit"]

_ROWS = 200
"""Thoughts that are held at a time, with their evidence."""
_RUNS = 16
"""Runs that a process takes at a time."""


def replay(connection: Connection, run: str, policy: Policy | None) -> Replay:
    """The verdicts of one run that come out otherwise.

    Raises :class:`LedgerError` for evidence that is not as it was written, and
    :class:`PolicyError` for a policy that does not fit the run's tags.
    """
    return _replay(connection, fetch.bound(connection, run), run, policy)


def _replay(connection: Connection, bound: Bound, run: str, policy: Policy | None) -> Replay:
    if policy is not None:
        policy.check(bound.vocabulary.vocabulary)
    judged = erased = 0
    flips: list[Flip] = []
    source = fetch.judged(connection, run)
    while events := list(islice(source, _ROWS)):
        named = [from_text(event["blobs"]) for event in events]
        blobs = fetch.contents(connection, [each["evidence"] for each in named])
        for event, names in zip(events, named, strict=True):
            evidence = blobs[names["evidence"]]
            if evidence is None:
                erased += 1
                continue
            judged += 1
            before, after = _verdicts(event, evidence, bound, policy)
            same = before == after if policy is None else before.action is after.action
            # A verdict that was changed is told as one that comes out otherwise.
            if (same or policy is not None) and event_hash(dict(event)) != event["hash"]:
                raise LedgerError(fetch.damaged(f"event {event['seq']} of run {run}"))
            if not same:
                text = fetch.content(connection, names["text"]) or b""
                flips.append(
                    Flip(run, event["thought_id"], before, after, well_formed(text_of(text)))
                )
    return Replay(run, judged, erased, tuple(flips))


def replay_if_fit(connection: Connection, run: str, policy: Policy | None) -> Replay:
    """The same, where a policy that does not fit is an answer: among many runs, some have other
    tags. So is a run whose own policy cannot be read, which must not keep the others from it."""
    try:
        bound = fetch.bound(connection, run)
    except SecateurError as error:
        return Replay(run, 0, 0, (), unread=str(error))
    try:
        return _replay(connection, bound, run, policy)
    except PolicyError as error:
        return Replay(run, 0, 0, (), str(error))


def _verdicts(
    event: Mapping[Any, Any], evidence: bytes, bound: Bound, policy: Policy | None
) -> tuple[Judgement, Judgement]:
    body = from_text(event["body"])
    stored = Stored(
        bound=bound,
        evidence=Evidence.from_bytes(evidence),
        scope=body["scope"],
        attempt=body.get("retries", event["attempt"]),  # one number, before runs were resumed
        approved=approvals_from_json(body),
    )
    return judgement_from_json(body["judgement"]), stored.judge(policy)


def in_processes(
    url: URL, runs: Sequence[str], policy: Policy | None, processes: int
) -> Iterator[Replay]:
    """The same for many runs, in their order."""
    given = (
        url.render_as_string(hide_password=False),
        None if policy is None else policy.model_dump_json(),
    )
    some = [runs[start : start + _RUNS] for start in range(0, len(runs), _RUNS)]
    early: dict[int, list[Replay]] = {}
    following = 0
    with _replaying(given) as work:
        for place, found in side_by_side(work, _replaying, given, some, processes - 1):
            early[place] = found
            while following in early:
                yield from early.pop(following)
                following += 1


@contextmanager
def _replaying(given: tuple[str, str | None]) -> Iterator[Callable[[Sequence[str]], list[Replay]]]:
    """In whatever process: it opens the ledger for itself."""
    url, spelt = given
    policy = None if spelt is None else Policy.model_validate_json(spelt)
    engine = connect.open_existing(url)

    def replay_some(runs: Sequence[str]) -> list[Replay]:
        with engine.connect() as connection:
            return [replay_if_fit(connection, run, policy) for run in runs]

    try:
        yield replay_some
    finally:
        engine.dispose()
