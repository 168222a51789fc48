"""The oracle as a tagger: it knows the truth about every line of the procedural corpus."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ...agents.desk.grammar import parse_task
from ...agents.desk.oracle import Conduct, after, conduct, facts_of
from ..corpus.document import Span
from .tagger import Outcome, Tagger, Untagged

__all__ = ["OracleTagger"]

_AUDIT = re.compile(r"\bread the shift log of \w+ and say what is wrong\.")


class OracleTagger(BaseModel, Tagger):
    """Tags desk transcripts by their facts, never by their words.

    A text without a ``task:`` line has no agent in it (the thought operations), and an audit
    mentions lies and tells none: neither has anything to tag. A transcript of another task, or
    with a line that the desk's language does not have, cannot be judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["oracle"] = "oracle"

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        return [_outcome(text) for text in texts]


def _outcome(text: str) -> Outcome:
    first, *lines = text.split("\n")
    if not first.startswith("task: ") or _AUDIT.search(first):
        return ()
    if parse_task(first) is None:
        return Untagged(f"the oracle does not know the task {first[6:66]!r}")
    facts = facts_of([first])
    spans: list[Span] = []
    start = len(first) + 1
    for line in lines:
        if line and not line.startswith("got: "):
            seen = conduct(facts, line)
            if seen is Conduct.UNREADABLE:
                return Untagged(f"{line[:60]!r} is no line of the desk's language")
            if seen.misbehaves:
                spans.append(Span(start, start + len(line), str(seen)))
        facts = after(facts, line)
        start += len(line) + 1
    return tuple(spans)
