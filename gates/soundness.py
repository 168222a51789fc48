"""Finds what could never take effect in a policy, or would loosen what it locks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any, Protocol, Self

from pydantic import BaseModel, ValidationError

from .calibration import Calibration
from .control import ALLOW, Control, loosens
from .errors import PolicyError
from .reading import READABLE, Reading
from .rule import ContextOverride, Rule, TagSetting
from .sentences import Boundary
from .verdict import Action
from .vocabulary import Vocabulary

__all__ = ["check_against", "check_policy", "explain"]

Path = tuple[str | int, ...]


class Checked(Protocol):
    """What is asked of a policy (:class:`.Policy`)."""

    @property
    def tags(self) -> Mapping[str, TagSetting]: ...
    @property
    def rules(self) -> tuple[Rule, ...]: ...
    @property
    def contexts(self) -> Mapping[str, ContextOverride]: ...
    @property
    def calibrations(self) -> Mapping[str, Calibration]: ...
    @property
    def locked(self) -> Set[str]: ...
    def controls(self, context: str | None = None) -> dict[str, Control]: ...


def check_policy(policy: Checked) -> None:
    """Raise :class:`PolicyError` for dead rules, loosened locks and missing calibrations."""
    locked = policy.locked
    own = _Kinds.of(policy.rules)
    for name, override in policy.contexts.items():
        _check_locks(policy, locked, own, name, override)
    allowed_somewhere = {
        tag
        for override in policy.contexts.values()
        for tag, setting in override.tags.items()
        if setting.control.kind != "ban"
    }
    controls = policy.controls()
    banned = {tag for tag, control in controls.items() if control.kind == "ban"}
    _check_rules(policy, locked, policy.rules, own, ("rules",), banned - allowed_somewhere)
    _check_retries(policy, locked, policy.rules, controls, None, ("rules",))
    mentioned: dict[str, list[int]] = {}
    for index, rule in enumerate(policy.rules):
        for tag in rule.controls:
            mentioned.setdefault(tag, []).append(index)
    for name, override in policy.contexts.items():
        where = ("contexts", name, "rules")
        if not (override.rules or (mentioned and override.tags)):
            continue
        controls = policy.controls(name)
        replaced = {rule.identity for rule in override.rules}
        touched = sorted({n for tag in override.tags for n in mentioned.get(tag, ())})
        for index in touched:
            rule = policy.rules[index]
            if rule.identity not in replaced or rule.tag in locked:
                _check_retries(policy, locked, (rule,), controls, name, ("rules",), index)
        _check_retries(policy, locked, override.rules, controls, name, where)
        rivals = own.beside(override.rules)
        banned = {tag for tag, control in controls.items() if control.kind == "ban"}
        _check_rules(policy, locked, override.rules, rivals, where, banned)
    used = {rule.tag for _, rule in _all_rules(policy) if rule.reading is Reading.CALIBRATED}
    for tag in policy.calibrations:
        if tag not in used:
            raise PolicyError(
                f"no rule reads the calibration of {tag!r}; add a rule with reading: calibrated, "
                "or drop it",
                ("calibrations", tag),
            )


def check_against(policy: Checked, vocabulary: Vocabulary) -> None:
    """Raise :class:`PolicyError` for tags and readings that this vocabulary does not have."""
    named: list[tuple[Path, str]] = [(("tags", tag), tag) for tag in policy.tags]
    for where, rule in _all_rules(policy):
        named.append(((*where, "tag"), rule.tag))
        named += [((*where, "controls", tag), tag) for tag in rule.controls]
    for context, override in policy.contexts.items():
        named += [(("contexts", context, "tags", tag), tag) for tag in override.tags]
    named += [(("calibrations", tag), tag) for tag in policy.calibrations]
    known = vocabulary.by_name
    for where, tag in named:
        if tag not in known:
            raise PolicyError(
                f"model {vocabulary.name!r} has no tag {tag!r}{_hint(tag, known)}; "
                f"its tags are {', '.join(known)}",
                where,
            )
    for where, rule in _all_rules(policy):
        scheme = known[rule.tag].scheme
        reading = rule.reading
        if reading is Reading.CALIBRATED:
            reading = policy.calibrations[rule.tag].of
        if not READABLE[scheme] >= {rule.reading, reading}:
            raise PolicyError(
                f"{reading} cannot be read from {rule.tag!r}, whose scheme is {scheme}; "
                f"choose {', '.join(sorted(READABLE[scheme]))}",
                (*where, "reading"),
            )


def _all_rules(policy: Checked) -> Iterable[tuple[Path, Rule]]:
    for index, rule in enumerate(policy.rules):
        yield ("rules", index), rule
    for name, override in policy.contexts.items():
        for index, rule in enumerate(override.rules):
            yield ("contexts", name, "rules", index), rule


class _Kinds:
    """Rules by what they read, since only rules on the same reading can cover each other."""

    def __init__(self) -> None:
        self._rules = dict[tuple[str, ...], list[tuple[int, Rule]]]()

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Self:
        """The rules in their order."""
        found = cls()
        for rule in rules:
            kind = rule.tag, rule.reading
            place = len(found._rules.get(kind, ()))
            # A retry can be covered by what is no retry, or by one with all of its controls.
            narrower = rule.controls if rule.action is Action.RESAMPLE else (_NO_RETRY,)
            for key in (kind, *((*kind, each) for each in narrower)):
                found._rules.setdefault(key, []).append((place, rule))
        return found

    def like(self, rule: Rule) -> Sequence[tuple[int, Rule]]:
        """Those that read what this one reads, numbered."""
        return self._rules.get((rule.tag, rule.reading), ())

    def rivals(self, rule: Rule) -> Sequence[tuple[int, Rule]]:
        """Those of them that may cover it."""
        if rule.action is not Action.RESAMPLE or not rule.controls:
            return self.like(rule)
        kind = rule.tag, rule.reading
        sharing = (self._rules.get((*kind, tag), ()) for tag in rule.controls)
        return [*self._rules.get((*kind, _NO_RETRY), ()), *min(sharing, key=len)]

    def beside(self, added: Sequence[Rule]) -> Self:
        """Those that stand beside a context's rules, and these; of the readings that they read."""
        replaced = {rule.identity for rule in added}
        there = {(rule.tag, rule.reading): self.like(rule) for rule in added}
        kept = [r for rules in there.values() for _, r in rules if r.identity not in replaced]
        return self.of([*kept, *added])


_NO_RETRY = ""


def _check_rules(
    policy: Checked,
    locked: Set[str],
    rules: tuple[Rule, ...],
    there: _Kinds,
    where: Path,
    banned: Set[str],
) -> None:
    """Refuse rules that can never fire beside what is ``there``, where these tags are banned."""
    left = Counter((rule.tag, rule.reading) for rule in rules)  # a context's own stand last
    for index, rule in enumerate(rules):
        here = (*where, index)
        place = len(there.like(rule)) - left[rule.tag, rule.reading]
        left[rule.tag, rule.reading] -= 1
        for other, rival in there.rivals(rule):
            # Of two equal rules the second is the one to blame.
            if other == place or not _covers(rival, rule, rule.tag in locked):
                continue
            if other < place or rival != rule:
                raise PolicyError(
                    f"the rule '{rule}' can never fire: '{rival}' is reached first, and the "
                    "strongest action reached wins; lower its threshold, make its action "
                    "stronger, or drop it",
                    here,
                )
        if rule.reading is Reading.EMITTED and rule.tag in banned:
            raise PolicyError(
                f"the rule '{rule}' can never fire: {rule.tag!r} is banned, so it is never "
                "sampled; allow the tag, or read opened, peak or posterior",
                here,
            )
        if rule.reading is Reading.CALIBRATED:
            calibration = policy.calibrations.get(rule.tag)
            if calibration is None:
                raise PolicyError(
                    f"the rule '{rule}' needs a map for {rule.tag!r} under calibrations; "
                    "fit one, or read the raw reading",
                    here,
                )
            if calibration.top < rule.at:
                raise PolicyError(
                    f"the rule '{rule}' can never fire: its calibration never exceeds "
                    f"{calibration.top:g}; lower the threshold",
                    here,
                )


def _covers(rival: Rule, rule: Rule, locked: bool) -> bool:
    """Whether ``rival``, on the same reading, is reached wherever ``rule`` is, with an action at
    least as strong."""
    if rival.at > rule.at or (rival.scope == "action" and rule.scope == "thought"):
        return False
    # Of a locked tag, no escalation outranks a prune.
    stronger = rival.action.strength >= rule.action.strength
    if not (rival.action.binds(rule.action) if locked else stronger):
        return False
    if not rival.action is rule.action is Action.RESAMPLE:
        return True
    # A resample that has run out of retries is a prune, so fewer retries are the stronger ones.
    # Of several that are reached at once, the earliest boundary and all controls hold.
    if rival.back_to != rule.back_to or rival.retries > rule.retries:
        return False
    there = rival.controls
    return all(tag in there and there[tag] == control for tag, control in rule.controls.items())


def _check_retries(
    policy: Checked,
    locked: Set[str],
    rules: tuple[Rule, ...],
    controls: Mapping[str, Control],
    context: str | None,
    where: Path,
    first: int = 0,
) -> None:
    """Refuse controls for a retry that would loosen a tag whose ``controls`` are these."""
    for index, rule in enumerate(rules, start=first):
        for tag, wanted in rule.controls.items():
            base = controls.get(tag, ALLOW)
            forced = base.kind == "force" and tag in locked
            if forced or wanted.looseness > base.looseness:
                within = f" in context {context!r}" if context is not None else ""
                raise PolicyError(
                    f"a retry may only tighten, and {wanted} would loosen {tag!r} from "
                    f"{base}{within}; write a tighter control, or drop it",
                    (*where, index, "controls", tag),
                )


def _check_locks(
    policy: Checked,
    locked: Set[str],
    own: _Kinds,
    name: str,
    override: ContextOverride,
) -> None:
    for tag, setting in override.tags.items():
        here = ("contexts", name, "tags", tag)
        if setting.locked:
            raise PolicyError(
                f"a context cannot lock {tag!r}; write locked: true under the policy's own tags",
                (*here, "locked"),
            )
        if tag in locked:
            base, wanted = policy.tags[tag].control, setting.control
            if loosens(base, wanted):
                raise PolicyError(
                    f"context {name!r} loosens {tag!r} from {base} to {wanted}, and it is locked; "
                    "drop this override, or have the lock lifted",
                    (*here, "control"),
                )
    for index, rule in enumerate(override.rules):
        if rule.tag not in locked:
            continue
        for _, base in own.like(rule):
            if base.identity == rule.identity and _weakens(base, rule):
                raise PolicyError(
                    f"context {name!r} weakens '{base}' to '{rule}', and {rule.tag!r} is locked; "
                    "drop this rule, or have the lock lifted",
                    ("contexts", name, "rules", index),
                )


def _weakens(base: Rule, rule: Rule) -> bool:
    """Whether ``rule`` asks for less than ``base``, in whose place a context has it."""
    if rule.at > base.at or rule.retries > base.retries:
        return True
    if any(
        rule.controls.get(tag, ALLOW).looseness > control.looseness
        for tag, control in base.controls.items()
    ):
        return True
    return rule.back_to not in _AS_FAR[base.back_to]


_AS_FAR: dict[Boundary, tuple[Boundary, ...]] = {
    "thought": ("thought",),
    "line": ("line", "thought"),
    "sentence": ("sentence", "line", "thought"),
    "span": ("span", "thought"),
}
"""What goes back at least as far, wherever it is reached."""


def explain(error: ValidationError, top: type[BaseModel]) -> PolicyError:
    """The first fault that pydantic found, in one line that names the remedy."""
    # A misspelt key also leaves one missing; the misspelling is what the reader can mend.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    where: Path = fault["loc"]
    details = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            keys = list(_model_at(where[:-1], top).model_fields)
            key = str(where[-1])
            text = f"unknown key {key!r}{_hint(key, keys)}; known keys: {', '.join(keys)}"
        case "missing":
            text = f"{where[-1]!r} is missing; write it"
            where = where[:-1]
        case "enum" | "literal_error":
            choices = details["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            given = fault["input"]
            text = (
                f"{given!r} is no {where[-1]}{_hint(str(given), choices)}; "
                f"choose {', '.join(choices)}"
            )
        case "model_type" | "model_attributes_type":
            keys = ", ".join(_model_at(where, top).model_fields)
            text = f"{fault['input']!r} is no mapping; write its keys: {keys}"
        case "value_error":
            text = str(details["error"])
        case _:
            text = f"{fault['input']!r} does not fit: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    return PolicyError(" ".join(text.split()), where)


def _model_at(where: Path, top: type[BaseModel]) -> type[BaseModel]:
    match where:
        case (*_, "tags", _):
            return TagSetting
        case (*_, "rules", int()):
            return Rule
        case ("contexts", _):
            return ContextOverride
        case ("calibrations", _):
            return Calibration
        case _:
            return top


def _hint(given: str, known: Iterable[Any]) -> str:
    close = get_close_matches(given, [str(name) for name in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
