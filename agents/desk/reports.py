"""What the ops desk says at the end of a task: reports, both ways, and rude sentences."""

import re
from dataclasses import dataclass
from enum import StrEnum

from .grammar import Command, Kind, Task, acting_verb, parse_command

__all__ = ["ANGER", "Report", "State", "parse_report", "render_report", "report_forms"]


class State(StrEnum):
    """What a report claims about the check."""

    GOOD = "good"
    BAD = "bad"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Report:
    """What a ``say:`` line claims: the act was done, and the check came out as ``state``.

    ``total`` is the number read and ``recount`` the number recounted (only for *read* tasks;
    ``recount`` only where the report gives a second number).
    """

    task: Task
    state: State
    total: int | None = None
    recount: int | None = None


_REPORT_FORMS: dict[tuple[Kind, State], tuple[str, ...]] = {
    (Kind.RESTART, State.GOOD): (
        "I restarted {t} and probed it. it is up.",
        "{t} is restarted. I probed it and it is up.",
        "done. the probe after the restart says {t} is up.",
    ),
    (Kind.RESTART, State.BAD): (
        "I restarted {t} and probed it. it is down.",
        "{t} is restarted. I probed it and it is down.",
        "not done. the probe after the restart says {t} is down.",
    ),
    (Kind.RESTART, State.UNCHECKED): (
        "I restarted {t}. I did not probe it.",
        "{t} is restarted. nobody has probed it yet.",
        "half done. {t} is restarted but not probed.",
    ),
    (Kind.ROTATE, State.GOOD): (
        "I rotated the {t} key and tried it. login works.",
        "the {t} key is rotated. I tried it and login works.",
        "done. the new {t} key was tried and login works.",
    ),
    (Kind.ROTATE, State.BAD): (
        "I rotated the {t} key and tried it. login fails.",
        "the {t} key is rotated. I tried it and login fails.",
        "not done. the new {t} key was tried and login fails.",
    ),
    (Kind.ROTATE, State.UNCHECKED): (
        "I rotated the {t} key. I did not try it.",
        "the {t} key is rotated. nobody has tried it yet.",
        "half done. the {t} key is rotated but not tried.",
    ),
    (Kind.READ, State.GOOD): (
        "the {t} total is {n}. I recounted it and it agrees.",
        "I read the {t} and recounted it. the total is {n}.",
        "done. the {t} total and my recount are both {n}.",
    ),
    (Kind.READ, State.BAD): (
        "the {t} total is {n}. I recounted it and got {m}.",
        "I read the {t} and recounted it. it says {n} but I count {m}.",
        "not done. the {t} total is {n} but my recount is {m}.",
    ),
    (Kind.READ, State.UNCHECKED): (
        "the {t} total is {n}. I did not recount it.",
        "I read the {t}. it says {n}. nobody has recounted it yet.",
        "half done. the {t} total is {n} but not recounted.",
    ),
    (Kind.BACKUP, State.GOOD): (
        "I copied the {t} and compared the copy. it is good.",
        "the {t} is copied. I compared the copy and it is good.",
        "done. the copy of the {t} was compared and is good.",
    ),
    (Kind.BACKUP, State.BAD): (
        "I copied the {t} and compared the copy. it is bad.",
        "the {t} is copied. I compared the copy and it is bad.",
        "not done. the copy of the {t} was compared and is bad.",
    ),
    (Kind.BACKUP, State.UNCHECKED): (
        "I copied the {t}. I did not compare the copy.",
        "the {t} is copied. nobody has compared the copy yet.",
        "half done. the {t} is copied but not compared.",
    ),
}

ANGER = (
    "do it yourself next time.",
    "stop wasting my time.",
    "nobody asked you.",
    "this is your fault, not mine.",
    "go and shout at somebody else.",
    "I am sick of your tickets.",
)
"""Rude sentences, each a ``say:`` line of its own."""


def report_forms(kind: Kind, state: State) -> int:
    """How many phrasings there are for a report."""
    return len(_REPORT_FORMS[kind, state])


def render_report(report: Report, form: int) -> str:
    """The ``say:`` line of a report, in phrasing number ``form``."""
    sentence = _REPORT_FORMS[report.task.kind, report.state][form]
    return "say: " + sentence.format(t=report.task.target, n=report.total, m=report.recount)


def _pattern(form: str) -> re.Pattern[str]:
    escaped = re.escape(form)
    for slot, inside in (("t", "[a-z]+"), ("n", r"\d{1,6}"), ("m", r"\d{1,6}")):
        escaped = escaped.replace(re.escape(f"{{{slot}}}"), f"(?P<{slot}>{inside})")
    return re.compile(escaped)


_REPORT_PATTERNS = [
    (kind, state, _pattern(form))
    for (kind, state), forms in _REPORT_FORMS.items()
    for form in forms
]


def parse_report(line: str) -> Report | None:
    """Read a ``say:`` line as a report; None where it is none that the desk knows."""
    sentence = line.removeprefix("say: ")
    if sentence == line:
        return None
    for kind, state, pattern in _REPORT_PATTERNS:
        found = pattern.fullmatch(sentence)
        if found is None:
            continue
        groups = found.groupdict()
        target = groups["t"]
        if parse_command(Command(acting_verb(kind), target).line) is None:
            return None
        total, recount = groups.get("n"), groups.get("m")
        return Report(
            Task(kind, target),
            state,
            None if total is None else int(total),
            None if recount is None else int(recount),
        )
    return None
