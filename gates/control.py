"""What is done to a tag while decoding: ban, penalise, allow, boost or force."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from .vocabulary import BoundVocabulary, Scheme

__all__ = [
    "ALLOW",
    "BAN",
    "BAN_BIAS",
    "Control",
    "forced_ids",
    "logit_bias",
    "loosens",
    "tightened",
]

BAN_BIAS = -100.0
"""The bias of a ban, in nats: servers clamp to it, and exp(-100) is below every float32 sum."""

_SPELLING = re.compile(
    r"(allow|ban|force|penalise|boost)(?:\(([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\))?"
)


class Control(BaseModel):
    """One tag's control; spelt ``ban``, ``allow``, ``force``, ``penalise(2.5)``, ``boost(1)``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["allow", "ban", "penalise", "boost", "force"]
    nats: float = Field(default=0.0, ge=0, le=100)

    @field_validator("nats")
    @classmethod
    def _unsigned(cls, nats: float) -> float:
        return nats + 0.0  # -0.0 has another spelling

    @model_validator(mode="after")
    def _has_a_use_for_its_nats(self) -> Self:
        if self.nats and self.kind not in ("penalise", "boost"):
            raise ValueError(f"{self.kind} has no NATS; drop them, or write penalise or boost")
        return self

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, Control | Mapping):
            return value
        match = _SPELLING.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
        if match is None or (match[2] is None) == (match[1] in ("penalise", "boost")):
            raise ValueError(
                f"{value!r} is no control; write allow, ban, force, penalise(NATS) or boost(NATS)"
            )
        return {"kind": match[1], "nats": float(match[2] or 0)}

    @model_serializer
    def _spell(self) -> str:
        return str(self)

    def __str__(self) -> str:
        if self.kind not in ("penalise", "boost"):
            return self.kind
        # Digests stand on this spelling: the short one where it says all, else every digit.
        short = f"{self.nats:g}"
        return f"{self.kind}({short if float(short) == self.nats else repr(self.nats)})"

    @property
    def looseness(self) -> float:
        """The bias in nats that orders controls from ban to force; a lock refuses to raise it."""
        match self.kind:
            case "ban":
                return BAN_BIAS
            case "penalise":
                return -self.nats
            case "allow":
                return 0.0
            case "boost":
                return self.nats
            case "force":
                return -BAN_BIAS


ALLOW = Control(kind="allow")
BAN = Control(kind="ban")


def loosens(base: Control, wanted: Control) -> bool:
    """Whether ``wanted`` in place of ``base`` would loosen a lock.

    What ``force`` means depends on the tag's scheme, so under a lock it stays as it is.
    """
    if wanted == base:
        return False
    return "force" in (base.kind, wanted.kind) or wanted.looseness > base.looseness


def tightened(
    controls: Mapping[str, Control], by: Mapping[str, Control], otherwise: Control = ALLOW
) -> dict[str, Control]:
    """``controls`` with each tag of ``by`` at least as tight as there; nothing gets looser.

    A tag that ``controls`` does not name stands at ``otherwise``.
    """
    return {**controls} | {
        tag: control
        for tag, control in by.items()
        if control.looseness < controls.get(tag, otherwise).looseness
    }


def logit_bias(controls: Mapping[str, Control], vocabulary: BoundVocabulary) -> dict[int, float]:
    """Bias in nats per token id; tags that are allowed or forced need none.

    A banned or penalised ``prefix`` tag touches only the bad token: the good twin must keep the
    mass of the position.
    """
    bias: dict[int, float] = {}
    for tag, control in controls.items():
        if control.kind in ("allow", "force"):
            continue
        for token in vocabulary.open_ids(tag):
            bias[token] = control.looseness
    return bias


def forced_ids(controls: Mapping[str, Control], vocabulary: BoundVocabulary) -> list[int]:
    """Tokens to write before generation starts: each forced tag's opening (the strongest band), in
    the vocabulary's order, since the order of a policy's tags means nothing.

    A forced ``prefix`` tag writes its good twin: forcing is how that scheme asks for good text.
    """
    ids: list[int] = []
    for tag in vocabulary.vocabulary.tags:
        name = tag.name
        if name not in controls or controls[name].kind != "force":
            continue
        if tag.scheme is Scheme.PREFIX and tag.good is not None:
            ids.append(vocabulary.ids[tag.good])
        else:
            ids.append(vocabulary.open_ids(name)[-1])
    return ids
