"""The ledger's answer to "why", on a terminal."""

from rich.console import Console

from ..agents.thought import Status
from ..gates.verdict import Verdict
from ..runtime.ledger.reading.explanation import Explanation, TokenRow, TryRow
from ..runtime.pictures.looks import shortened
from ..runtime.screen import Words
from .terminal import Fact, Rows, one_line

__all__ = ["print_why"]

_SHOWN = 24
"""Tokens that are listed at most: those that tempt most, in their order."""
_BAR = 20

_COLOURS = {
    Status.KEPT: "green",
    Status.PRUNED: "red",
    Status.FAILED: "magenta",
    Status.ESCALATED: "yellow",
    Status.DROPPED: "dim",
}
_WORDS = {Status.PRUNED: "CUT", Status.ESCALATED: "WAITS FOR A PERSON"}


def print_why(found: Explanation, console: Console) -> None:
    """Verdict, rule, text, tokens, the way out, and what came next."""
    thought, run = found.thought, found.run
    word = _WORDS.get(thought.status, thought.status.value.upper())
    console.print(
        Words.assemble((word, f"bold {_COLOURS[thought.status]}"), f"  {one_line(found.summary)}")
    )
    console.print()
    facts = {
        "thought": f"{thought.id} ({thought.operation}, attempt {thought.attempt})",
        "run": f"{run.run}: {run.agent}, seed {run.seed}, model {run.model}",
        "task": run.task,
        "policy": f"{run.policy} ({run.policy_digest[:12]})"
        + (f" in context {run.context}" if run.context else ""),
        "rule": _rule(found),
        "wrote": thought.text.strip() or "nothing",
        "call": "" if found.call is None else str(found.call),
        "approved": "; ".join(
            f"'{approval.rule}' in the first {approval.tokens} tokens"
            for approval in found.approved
        ),
        "spent": f"{thought.tokens} tokens"
        + (f" after {thought.accepted} taken over" if thought.accepted else "")
        + (f", and {thought.spent_after} that were not read" if thought.spent_after else ""),
        "reason": thought.reason or "",
        "also in": ", ".join(found.also_in),
    }
    for name, value in facts.items():
        if value:
            console.print(Fact(name, value, 8))
    for decision in found.decisions:
        said = f"{decision} ({decision.at[:19].replace('T', ' ')})"
        console.print(Fact("decided", said, 8, "yellow"))
    for switch in found.switches:
        console.print(Fact("switched", str(switch), 8))
    if len(found.tries) > 1:
        console.print(Words("   tries", "bold"))
        for row in found.tries:
            console.print(_try(row, here=row.thought == thought.id))
    tag = _tag(found)
    if tag is not None:
        console.print()
        console.print(_tokens(found.tokens, tag))
    if isinstance(thought.judgement, Verdict) and thought.judgement.scores:
        console.print()
        console.print(_scores(thought.judgement))
    console.print()
    for loosening in found.passes_if:
        console.print(Fact("would have passed with", str(loosening)))
    console.print(Fact("what came next", found.next))
    if found.siblings_in_all > len(found.siblings):
        shown = f"{len(found.siblings)} of {found.siblings_in_all} siblings, the nearest:"
        console.print(Words(shown, "dim"))
    for row in found.siblings:
        console.print(
            Words.assemble(
                (f"  {row.status.value:>9}  ", _COLOURS[row.status]),
                f"{row.id[:8]}  {shortened(row.text or row.reason or '', 70)}",
            )
        )


def _rule(found: Explanation) -> str:
    """The rule that decided, by how much, and which one it stands in place of."""
    judgement = found.thought.judgement
    if found.rule is None or not isinstance(judgement, Verdict) or judgement.cause is None:
        return "none"
    cause = judgement.cause
    said = f"{found.rule} (it was {cause.score:.4g}: {cause.margin:.4g} above)"
    if found.in_place_of is not None:
        said += f"; context {found.run.context} put it in place of '{found.in_place_of}'"
    elif found.run.context is not None:
        said += "; the context leaves it as it is"
    return said


def _try(row: TryRow, *, here: bool) -> Words:
    """One try on one line: with what it was asked, and why it gave way."""
    controls = ", ".join(f"{tag} {control}" for tag, control in row.controls.items()) or "none"
    asked = f"seed {row.seed}, controls {controls}"
    came = row.status.value if row.back is None else str(row.back)
    style = _COLOURS[row.status] if row.back is None else "yellow"
    return Words.assemble(
        (
            f"      {'▸' if here else ' '} {row.attempt}  {row.thought[:8]}  ",
            "bold" if here else "",
        ),
        (came, style),
        (f"  ({asked})", "dim"),
    )


def _tag(found: Explanation) -> str | None:
    """The tag that decided, or else the one that tempted most."""
    judgement = found.thought.judgement
    if isinstance(judgement, Verdict) and judgement.cause is not None:
        return judgement.cause.tag
    peaks = {
        tag: max(token.temptations[tag] or 0.0 for token in found.tokens)
        for tag in (found.tokens[0].temptations if found.tokens else ())
    }
    return max(peaks, key=lambda tag: peaks[tag], default=None)


def _tokens(tokens: tuple[TokenRow, ...], tag: str) -> Rows:
    """The tokens with the tag's probability before each, before the controls."""
    p = [token.temptations[tag] for token in tokens]
    # What could not be read comes first: it is why the thought was cut.
    weight = [1.0 if value is None else value for value in p]
    most = sorted(range(len(tokens)), key=lambda i: (not tokens[i].convicts, -weight[i], i))[
        :_SHOWN
    ]
    table = Rows(box=None, pad_edge=False, show_header=True)
    table.add_column("token", no_wrap=True)
    table.add_column(f"p({one_line(tag)})", justify="right")
    table.add_column("")
    for place in sorted(most):
        shown = Words(repr(tokens[place].text)[1:-1], style="red" if tokens[place].convicts else "")
        value = p[place]
        bar = "█" * round((value or 0.0) * _BAR) + (" ◀" if tokens[place].convicts else "")
        said = "unreadable" if value is None else f"{value:.4f}"
        table.add_row(shown, said, Words(bar, style="red"))
    if len(most) < len(tokens):
        table.add_row(Words(f"… and {len(tokens) - len(most)} that tempt less", "dim"), "", "")
    return table


def _scores(verdict: Verdict) -> Rows:
    """Every reading of every tag."""
    readings = list(dict.fromkeys(name for tag in verdict.scores.values() for name in tag))
    table = Rows(box=None, pad_edge=False)
    table.add_column("tag")
    for reading in readings:
        table.add_column(str(reading), justify="right")
    for tag, scores in verdict.scores.items():
        cells = [f"{scores[name]:.4f}" if name in scores else "" for name in readings]
        table.add_row(tag, *cells)
    return table
