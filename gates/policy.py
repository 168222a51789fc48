"""A policy: which controls the tags get while decoding, and which readings cut a thought."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from .calibration import Calibration
from .canonical import digest
from .control import Control
from .errors import PolicyError
from .frozen import FrozenMapping, FrozenModel
from .policy_file import Places, parse_policy, read_policy
from .reading import Reading
from .rule import ContextOverride, Rule, TagSetting
from .soundness import check_against, check_policy, explain
from .verdict import Action, Broken
from .vocabulary import Vocabulary

__all__ = ["Policy"]


class Policy(FrozenModel):
    """A checked set of controls and rules, identified by the SHA-256 of its canonical JSON.

    Raises :class:`PolicyError`, in one line, for anything unknown, contradictory, or without
    effect. Two policies are equal when their digests are.
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^\S(.*\S)?$")
    description: str = ""
    tags: FrozenMapping[TagSetting] = Field(default={}, validate_default=True)
    """Controls by tag; a tag that is not named is allowed."""
    rules: tuple[Rule, ...] = ()
    contexts: FrozenMapping[ContextOverride] = Field(default={}, validate_default=True)
    """Overrides by context; a context that is not named gets the policy as it stands."""
    calibrations: FrozenMapping[Calibration] = Field(default={}, validate_default=True)
    """Isotonic maps by tag, for rules on ``calibrated``."""
    regrow: Literal["none", "ban"] = "none"
    """What to do when all children of a node were pruned: expand once more with the tags banned."""
    on_broken: Literal["prune", "halt"] = "prune"
    """What to do when a reading cannot be made."""

    _places: dict[tuple[str | int, ...], str] = PrivateAttr(default_factory=dict)
    _digest: str | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(
        cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            policy = handler(value)
        except ValidationError as error:
            raise explain(error, cls) from None
        if info.context != _RECORDED:
            check_policy(policy)
        return policy

    @classmethod
    def recorded(cls, text: str) -> Self:
        """Read canonical JSON as a ledger keeps it: what was accepted when it was written stays."""
        return cls.model_validate_json(text, context=_RECORDED)

    @classmethod
    def load(cls, path: str | Path, vocabulary: Vocabulary | None = None) -> "Policy":
        """Read a YAML file, or a shipped policy by name: ``observe``, ``prune``, ``strict``.

        Raises :class:`PolicyError` with file, line and remedy.
        """
        return cls.from_yaml(*read_policy(path), vocabulary)

    @classmethod
    def from_yaml(
        cls, text: str, source: str = "policy", vocabulary: Vocabulary | None = None
    ) -> "Policy":
        """Read YAML text; ``source`` names it in messages."""
        places: Places = {}
        data = parse_policy(text, source, places)
        try:
            policy = cls.model_validate(data)
        except PolicyError as error:
            raise error.placed(places) from None
        policy._places.update(places)
        if vocabulary is not None:
            policy.check(vocabulary)
        return policy

    def check(self, vocabulary: Vocabulary) -> None:
        """Refuse tags that the model does not have and readings that their schemes lack."""
        try:
            check_against(self, vocabulary)
        except PolicyError as error:
            raise error.placed(self._places) from None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what the ledger binds every verdict to."""
        if self._digest is None:  # made once: nothing in a policy can change
            self._digest = digest(self.model_dump(mode="json"))
        return self._digest

    @property
    def locked(self) -> frozenset[str]:
        """Tags whose control and rules no context may loosen."""
        return frozenset(tag for tag, setting in self.tags.items() if setting.locked)

    def controls(self, context: str | None = None) -> dict[str, Control]:
        """Control per named tag in this context."""
        settings = {**self.tags, **self._override(context).tags}
        return {tag: setting.control for tag, setting in settings.items()}

    def rules_for(self, context: str | None = None) -> tuple[Rule, ...]:
        """The rules in force in this context; ``Crossing.rule`` counts in this order.

        A context's rule stands in the place of the policy's of its kind, or where the tag is locked
        beside it; those of the policy then come last.
        """
        return self.replacing(context) + self.standing(context)

    def replacing(self, context: str | None) -> tuple[Rule, ...]:
        """The policy's rules of which the context has none of the same kind, then the context's."""
        added = self._override(context).rules
        if not added:
            return self.rules
        replaced = {rule.identity for rule in added}
        return tuple(rule for rule in self.rules if rule.identity not in replaced) + added

    def standing(self, context: str | None) -> tuple[Rule, ...]:
        """The rules of locked tags of which the context has some of the same kind."""
        added = {rule.identity for rule in self._override(context).rules}
        if not added:
            return ()
        locked = self.locked
        return tuple(rule for rule in self.rules if rule.tag in locked and rule.identity in added)

    def unlocked(self, context: str | None) -> frozenset[int]:
        """The numbers of the rules in force that no lock binds: those of other tags, and those that
        a context adds to a locked one."""
        locked, own = self.locked, {id(rule) for rule in self.rules}
        return frozenset(
            number
            for number, rule in enumerate(self.rules_for(context))
            if rule.tag not in locked or id(rule) not in own
        )

    def weighs(self, context: str | None = None) -> bool:
        """Whether a rule in this context reads the posterior, as it is or calibrated."""
        return any(self.raw(rule) is Reading.POSTERIOR for rule in self.rules_for(context))

    def raw(self, rule: Rule) -> Reading:
        """The reading behind a rule: what its calibration maps, or the rule's own."""
        if rule.reading is Reading.CALIBRATED:
            return self.calibrations[rule.tag].of
        return rule.reading

    def _override(self, context: str | None) -> ContextOverride:
        found = self.contexts.get(context) if context is not None else None
        return found or _NO_OVERRIDE

    def broken(self, reason: str) -> Broken:
        """The judgement for a reading that could not be made."""
        return Broken(reason, Action.HALT if self.on_broken == "halt" else Action.PRUNE)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


_NO_OVERRIDE = ContextOverride()
_RECORDED = "recorded"
