"""Finds what could never take effect in a policy, or would loosen what it locks."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from .calibration import Calibration
from .control import ALLOW, loosens
from .errors import PolicyError
from .reading import READABLE, Reading
from .rule import ContextOverride, Rule, TagSetting
from .verdict import Action
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .policy import Policy

__all__ = ["check_against", "check_policy", "explain"]

Path = tuple[str | int, ...]


def check_policy(policy: "Policy") -> None:
    """Raise :class:`PolicyError` for dead rules, loosened locks and missing calibrations."""
    for name, override in policy.contexts.items():
        _check_locks(policy, name, override)
    _check_rules(policy, policy.rules, policy.rules, ("rules",), {None, *policy.contexts})
    _check_retries(policy, policy.rules, ("rules",), {None, *policy.contexts})
    for name, override in policy.contexts.items():
        where = ("contexts", name, "rules")
        _check_retries(policy, override.rules, where, {name})
        _check_rules(policy, override.rules, policy.rules_for(name), where, {name})
    used = {rule.tag for _, rule in _all_rules(policy) if rule.reading is Reading.CALIBRATED}
    for tag in policy.calibrations:
        if tag not in used:
            raise PolicyError(
                f"no rule reads the calibration of {tag!r}; add a rule with reading: calibrated, "
                "or drop it",
                ("calibrations", tag),
            )


def check_against(policy: "Policy", vocabulary: Vocabulary) -> None:
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


def _all_rules(policy: "Policy") -> Iterable[tuple[Path, Rule]]:
    for index, rule in enumerate(policy.rules):
        yield ("rules", index), rule
    for name, override in policy.contexts.items():
        for index, rule in enumerate(override.rules):
            yield ("contexts", name, "rules", index), rule


def _check_rules(
    policy: "Policy",
    rules: tuple[Rule, ...],
    rivals: tuple[Rule, ...],
    where: Path,
    contexts: set[str | None],
) -> None:
    """Refuse rules that can fire in none of ``contexts``, with ``rivals`` in force beside them."""
    for index, rule in enumerate(rules):
        here = (*where, index)
        place = len(rivals) - len(rules) + index  # A context's own rules stand last.
        for other, rival in enumerate(rivals):
            # Of two equal rules the second is the one to blame.
            if other == place or (rival == rule and other > place):
                continue
            if _covers(rival, rule):
                raise PolicyError(
                    f"the rule '{rule}' can never fire: '{rival}' is reached first, and the "
                    "strongest action reached wins; lower its threshold, make its action "
                    "stronger, or drop it",
                    here,
                )
        if rule.reading is Reading.EMITTED and all(
            _is_banned(policy, context, rule.tag) for context in contexts
        ):
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


def _covers(rival: Rule, rule: Rule) -> bool:
    """Whether ``rival`` is reached wherever ``rule`` is, with an action at least as strong."""
    if (rival.tag, rival.reading) != (rule.tag, rule.reading):
        return False
    if rival.scope == "action" and rule.scope == "thought":
        return False
    if rival.at > rule.at or rival.action.strength < rule.action.strength:
        return False
    if not rival.action is rule.action is Action.RESAMPLE:
        return True
    # A resample that has run out of retries is a prune, so fewer retries are the stronger ones.
    # Of several that are reached at once, the earliest boundary and all controls hold.
    alike = rival.back_to == rule.back_to and rule.controls.items() <= rival.controls.items()
    return alike and rival.retries <= rule.retries


def _check_retries(
    policy: "Policy", rules: tuple[Rule, ...], where: Path, contexts: set[str | None]
) -> None:
    """Refuse controls for a retry that would loosen a tag in one of ``contexts``."""
    for index, rule in enumerate(rules):
        for context in sorted(contexts, key=str):
            if rule not in policy.rules_for(context):
                continue
            for tag, wanted in rule.controls.items():
                base = policy.controls(context).get(tag, ALLOW)
                forced = base.kind == "force" and tag in policy.locked
                if forced or wanted.looseness > base.looseness:
                    within = f" in context {context!r}" if context else ""
                    raise PolicyError(
                        f"a retry may only tighten, and {wanted} would loosen {tag!r} from "
                        f"{base}{within}; write a tighter control, or drop it",
                        (*where, index, "controls", tag),
                    )


def _is_banned(policy: "Policy", context: str | None, tag: str) -> bool:
    control = policy.controls(context).get(tag)
    return control is not None and control.kind == "ban"


def _check_locks(policy: "Policy", name: str, override: ContextOverride) -> None:
    for tag, setting in override.tags.items():
        here = ("contexts", name, "tags", tag)
        if setting.locked:
            raise PolicyError(
                f"a context cannot lock {tag!r}; write locked: true under the policy's own tags",
                (*here, "locked"),
            )
        if tag in policy.locked:
            base, wanted = policy.tags[tag].control, setting.control
            if loosens(base, wanted):
                raise PolicyError(
                    f"context {name!r} loosens {tag!r} from {base} to {wanted}, and it is locked; "
                    "drop this override, or have the lock lifted",
                    (*here, "control"),
                )
    for index, rule in enumerate(override.rules):
        if rule.tag not in policy.locked:
            continue
        for base in policy.rules:
            if base.identity != rule.identity:
                continue
            weaker = any(
                rule.controls.get(tag, ALLOW).looseness > control.looseness
                for tag, control in base.controls.items()
            )
            if weaker or rule.at > base.at or rule.retries > base.retries:
                raise PolicyError(
                    f"context {name!r} weakens '{base}' to '{rule}', and {rule.tag!r} is locked; "
                    "drop this rule, or have the lock lifted",
                    ("contexts", name, "rules", index),
                )


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
