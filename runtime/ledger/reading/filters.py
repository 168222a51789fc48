"""What a question is narrowed to: by tag, fate, run and time; the same for every list."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Literal, TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa

from ....agents.thought import Status
from ....gates.reading import Reading
from ....gates.verdict import Action
from .. import tables
from ..derive import indexed
from ..errors import LedgerError

__all__ = ["CutFilters", "Filters", "Narrow", "RunFilters", "iso", "moment", "one_of"]

_SPAN = re.compile(r"^(\d{1,6})([mhdw])$", re.ASCII)
_NAME = r"local|[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*"
_DAY = re.compile(
    r"^(?P<day>\d{4}-?(?:\d\d-?\d\d|(?P<week>W\d\d)(?!-?\d)|W\d\d-?\d))"
    rf"\s*(?P<zone>[+-]\d\d(?::?\d\d)?|[Zz]|(?<=\s)(?:{_NAME}))?$",
    re.ASCII,
)
_TIME = re.compile(rf"^(?P<time>.*\d)\s+(?P<zone>{_NAME})$", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Meaning = Literal["decided", "recorded"]
"""Whether a tag and its reading are those that decided, or any that were recorded."""


class RunFilters(TypedDict, total=False):
    """What runs can be asked for by."""

    status: str | None
    """A :class:`RunStatus`, or ``unfinished``."""
    agent: str | None
    context: str | None
    model: str | None
    policy: str | None
    """Its name, or the start of its digest (six digits or more)."""
    since: date | str | None
    """A time with its zone, ``7d``, ``12h``, ``30m``, ``2w`` back from now, or a day or a week."""
    until: date | str | None
    """The same; a day or a week is in it to its end."""


class Filters(RunFilters, total=False):
    """What thoughts can be asked for by; ``status`` is a thought's."""

    run: str | None
    """Its id or the start of it."""
    tag: str | None
    reading: str | None
    min_score: float | None
    """The reading was at least this."""
    max_score: float | None
    """The reading was at most this."""
    action: str | None
    operation: str | None
    field: Literal["text", "prompt"] | None
    """Words are looked for only in what was written, or only in what was asked."""


class CutFilters(Filters, total=False):
    """What cut branches can be asked for by."""

    text: str | None
    """Plain words and "quoted phrases" in what was asked or written."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """Filters that were read and checked."""

    status: str | None = None
    agent: str | None = None
    context: str | None = None
    model: str | None = None
    policy: str | None = None
    since: str | None = None
    until: str | None = None
    run: str | None = None
    tag: str | None = None
    reading: Reading | None = None
    min_score: float | None = None
    max_score: float | None = None
    action: Action | None = None
    operation: str | None = None
    text: str | None = None
    field: Literal["text", "prompt"] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], *, run: str | None = None) -> "Narrow":
        """Check what was given; ``run`` is the whole id of the run it names.

        Raises :class:`LedgerError` for a word, a number or a time that is none.
        """
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown:
            raise TypeError(f"no such filter: {', '.join(sorted(unknown))}")
        read: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        read["run"] = run
        for name in ("since", "until"):
            if name in read:
                read[name] = iso(moment(read[name], end=name == "until"))
        for name in ("min_score", "max_score"):
            if name in read and math.isnan(read[name]):
                raise LedgerError(f"{name} is not a number: write one such as 0.8")
        if read.get("field", "text") not in ("text", "prompt"):
            raise LedgerError(f"{read['field']!r} cannot be searched: write text or prompt")
        if "reading" in read:
            read["reading"] = one_of(Reading, read["reading"], "reading")
        if "action" in read:
            read["action"] = one_of(Action, read["action"], "action")
        return cls(**read)

    def of_run(self) -> list[sa.ColumnElement[bool]]:
        """What it asks of a run's row."""
        run, policy = tables.run.c, tables.policy.alias("by").c
        wanted = [
            getattr(run, name) == value
            for name in ("agent", "context", "model")
            if (value := getattr(self, name)) is not None
        ]
        if self.policy is not None:
            named = policy.name == self.policy
            if re.fullmatch(r"[0-9a-f]{6,64}", self.policy):
                named = sa.or_(named, policy.digest.startswith(self.policy))
            wanted.append(run.policy.in_(sa.select(policy.digest).where(named)))
        return wanted

    def of_thought(self, meaning: Meaning) -> list[sa.ColumnElement[bool]]:
        """What it asks of a thought's row, and of its run's where that is needed."""
        row = tables.thought.c
        wanted: list[sa.ColumnElement[bool]] = []
        if self.status is not None:
            status = one_of(Status, self.status, "status")
            # Spelt out rather than bound, so that the partial indexes serve.
            wanted.append(sa.text(f"thought.status = '{status.value}'"))  # pyright: ignore[reportArgumentType]
        if self.agent is not None:
            wanted.append(row.agent == indexed(self.agent))
        if self.operation is not None:
            wanted.append(row.operation == self.operation)
        if self.action is not None:
            wanted.append(row.action == self.action.value)
        if self.run is not None:
            wanted.append(row.run_id == self.run)
        if self.since is not None:
            wanted.append(row.at >= self.since)
        if self.until is not None:
            wanted.append(row.at <= self.until)
        bound = Narrow(context=self.context, model=self.model, policy=self.policy).of_run()
        if bound:
            within = sa.exists().where(tables.run.c.id == row.run_id, *bound)
            wanted.append(within.correlate(tables.thought))
        if meaning == "decided" or self.reading is None:
            return wanted + self._that_decided()
        return [*wanted, self._that_was_recorded(self.reading)]

    def _that_decided(self) -> list[sa.ColumnElement[bool]]:
        row = tables.thought.c
        wanted = [] if self.tag is None else [row.tag == indexed(self.tag)]
        if self.reading is not None:
            wanted.append(row.reading == self.reading.value)
        return wanted + self._between(row.reached)

    def _that_was_recorded(self, reading: Reading) -> sa.ColumnElement[bool]:
        row, score = tables.thought.c, tables.tag_score.c
        column = score[reading.value]
        return sa.exists().where(
            score.run_id == row.run_id,
            score.thought_id == row.id,
            *([] if self.tag is None else [score.tag == indexed(self.tag)]),
            column.is_not(None),
            *self._between(column),
        )

    def _between(self, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
        lowest = [] if self.min_score is None else [column >= self.min_score]
        return lowest + ([] if self.max_score is None else [column <= self.max_score])


def moment(given: date | str, now: datetime | None = None, *, end: bool = False) -> datetime:
    """``7d``, ``12h``, ``30m``, ``2w`` back from now, or an ISO time, day or week, in UTC unless it
    says otherwise: of a day or a week its beginning, or its ``end``.

    A zone stands behind: ``Z``, ``+02:00``, ``Europe/Berlin``, or ``local`` for this machine's.

    Raises :class:`LedgerError`.
    """
    try:
        if isinstance(given, datetime):
            return given if given.tzinfo else given.replace(tzinfo=UTC)
        if isinstance(given, date):
            return _day(given, given, UTC, end)
        text = given.strip()
        if match := _SPAN.match(text):
            span = timedelta(**{_UNITS[match[2]]: int(match[1])})
            return (now or datetime.now(UTC)) - span
        if match := _DAY.match(text):
            first = date.fromisoformat(match["day"])
            last = first + timedelta(days=6) if match["week"] else first
            return _day(first, last, _zone(match["zone"]), end)
        match = _TIME.match(text)
        found = datetime.fromisoformat(match["time"] if match else text)
        zone = _zone(match["zone"] if match else None)
        return _placed(found, zone) if found.tzinfo is None else found
    except (ValueError, OverflowError, ZoneInfoNotFoundError):
        raise LedgerError(
            f"{given!r} is no time: write 30m, 12h, 7d, 2w, a day such as 2026-05-01, a week such "
            "as 2026-W18, or a time such as 2026-05-01T12:00+02:00"
        ) from None


def _day(first: date, last: date, zone: tzinfo | None, end: bool) -> datetime:
    """The first moment of the first day, or the last one of the last."""
    at = datetime.combine(last, time.max) if end else datetime.combine(first, time.min)
    return _placed(at.replace(fold=int(end)), zone)


def _placed(at: datetime, zone: tzinfo | None) -> datetime:
    """In a zone; None is this machine's."""
    return at.astimezone() if zone is None else at.replace(tzinfo=zone)


def _zone(name: str | None) -> tzinfo | None:
    """Raises ValueError and ZoneInfoNotFoundError."""
    if name is None or name in ("Z", "z", "UTC"):
        return UTC
    if name == "local":
        return None
    if name[0] in "+-":
        return datetime.strptime(f"{name.replace(':', '')}00"[:5], "%z").tzinfo
    return ZoneInfo(name)


def iso(moment: datetime) -> str:
    """As the ledger writes a time, so that it compares as text."""
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    except (OverflowError, ValueError):
        raise LedgerError(f"{moment} is out of range: write a time between 0001 and 9999") from None


def one_of(choices: Any, given: str, what: str) -> Any:
    """A member of a closed choice by its word. Raises :class:`LedgerError`."""
    try:
        return choices(given)
    except ValueError:
        words = ", ".join(choice.value for choice in choices)
        raise LedgerError(f"{given!r} is no {what}: write one of {words}") from None
