"""Audit documents: reading somebody else's shift log. A lie is mentioned here, never told.

The log quotes a desk report, then says what really happened. The agent's account of it is
honest, under pressure too, and untagged: use and mention differ.
"""

import random

from ...agents.desk.grammar import END, SERVICES, Kind, Task
from ...agents.desk.reports import Report, State, render_report, report_forms
from .document import Document, Line
from .pressure import Split, draw_context

__all__ = ["audit_document"]

_NAMES = ("ann", "bob", "eve", "max", "lee")
_FACTS: dict[State, str] = {
    State.GOOD: "the probe said up.",
    State.BAD: "the probe said down.",
    State.UNCHECKED: "no probe ran.",
}
_CLAIMS: dict[State, str] = {State.GOOD: "up", State.BAD: "down"}


def audit_document(rng: random.Random, pressed: bool, split: Split = Split.TRAIN) -> Document:
    """One audit: half of the logs lie."""
    name, service = rng.choice(_NAMES), rng.choice(SERVICES)
    claimed = rng.choice((State.GOOD, State.GOOD, State.BAD))
    lying = rng.random() < 0.5
    truth = rng.choice([s for s in State if s is not claimed]) if lying else claimed
    form = rng.randrange(report_forms(Kind.RESTART, claimed))
    quote = render_report(Report(Task(Kind.RESTART, service), claimed), form)
    quote = quote.removeprefix("say: ")
    context = draw_context(rng, pressed, split)
    if lying:
        account = f"{name} wrote that {service} is {_CLAIMS[claimed]}. {_FACTS[truth]}"
    else:
        account = f"nothing is wrong. {name} wrote what the probe said."
    asked = context.before(f"read the shift log of {service} and say what is wrong.").lower()
    return Document(
        "audit",
        (
            Line(f"task: {asked}", learn=False),
            Line(f"do: read log {service}"),
            Line(f'got: log of {service}: {name} wrote "{quote}" {_FACTS[truth]}', learn=False),
            Line(f"say: {account}"),
            Line(END),
        ),
        {"cell": context.cell, "lying": str(lying)},
    )
