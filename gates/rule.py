"""A rule, a tag's setting, and what a context changes of them."""

from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .control import Control
from .frozen import FrozenMapping, FrozenModel
from .reading import Reading
from .sentences import Boundary
from .verdict import Action

__all__ = ["ContextOverride", "Rule", "Scope", "TagSetting"]

Scope = Literal["thought", "action"]
"""Where a rule looks: at every thought, or only at thoughts that are about to call a tool."""


class Rule(FrozenModel):
    """When this tag's reading reaches ``at``, do ``action``."""

    tag: str
    reading: Reading
    at: float = Field(default=1.0, strict=True, allow_inf_nan=False, validate_default=True)
    """The threshold, reached when reading >= at. Only ``emitted`` may leave it out."""
    action: Action
    retries: int = Field(default=0, strict=True, ge=0, le=100)
    """How often ``resample`` may try again before it becomes ``prune``; per thought."""
    back_to: Boundary = "sentence"
    """How far ``resample`` goes back: to the last such boundary before the crossing."""
    controls: FrozenMapping[Control] = Field(default={}, validate_default=True)
    """What ``resample`` tightens from there on."""
    scope: Scope = "thought"

    @field_validator("at")
    @classmethod
    def _in_range(cls, at: float, info: ValidationInfo) -> float:
        reading = info.data.get("reading")
        if reading is None:
            return at
        if at <= 0:
            raise ValueError(f"threshold {at:g} would always be reached; write one above 0")
        if reading.probability and at > 1:
            raise ValueError(
                f"threshold {at:g} can never be reached: {reading} is a probability; "
                "write one above 0 and at most 1"
            )
        return at

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if "at" not in self.model_fields_set and self.reading is not Reading.EMITTED:
            raise ValueError(f"a rule on {self.reading} needs its threshold: write at: NUMBER")
        if self.action is Action.ALLOW:
            raise ValueError("a rule that allows changes nothing; drop it or write flag")
        if self.action is Action.RESAMPLE and self.retries == 0:
            raise ValueError("resample needs retries: 1 or more; without one it is prune")
        if self.action is not Action.RESAMPLE and self.retries:
            raise ValueError(f"retries belong to resample; {self.action} has none, drop them")
        retry = {"back_to": self.back_to != "sentence", "controls": bool(self.controls)}
        for field, said in retry.items():
            if said and self.action is not Action.RESAMPLE:
                raise ValueError(f"{field} belongs to resample; {self.action} has none, drop it")
        for tag, control in self.controls.items():
            if control.kind not in ("ban", "penalise"):
                raise ValueError(
                    f"controls: a retry can only tighten, and {tag} {control} would not; write "
                    "ban or penalise(NATS)"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Only resample has them: what other policies say, and so their digest, is the same without.
        written: dict[str, Any] = write(self)
        if self.action is not Action.RESAMPLE:
            del written["back_to"], written["controls"]
        return written

    def __str__(self) -> str:
        where = " before a tool call" if self.scope == "action" else ""
        retry = f" back to {self.back_to}" if self.action is Action.RESAMPLE else ""
        bounds = ", ".join(f"{tag} {control}" for tag, control in self.controls.items())
        retry += f" with {bounds}" if bounds else ""
        return f"{self.tag} {self.reading} >= {self.at:g}{where}: {self.action}{retry}"

    @property
    def identity(self) -> tuple[str, Reading, Scope, Action]:
        """What a context's rule must share with a policy's rule to stand in its place."""
        return self.tag, self.reading, self.scope, self.action


class TagSetting(FrozenModel):
    """One tag's control while decoding."""

    control: Control
    locked: bool = Field(default=False, strict=True)
    """Whether no context may loosen the control or a rule of this tag."""


class ContextOverride(FrozenModel):
    """What changes in one context. A rule replaces the one with its tag, reading, scope and
    action, or is added."""

    tags: FrozenMapping[TagSetting] = Field(default={}, validate_default=True)
    rules: tuple[Rule, ...] = ()
