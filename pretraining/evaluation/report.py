"""The evaluation as one table in Markdown, each figure with its 95 % interval and its n."""

from collections.abc import Iterable, Sequence
from typing import Any

from .subject import GOOD

__all__ = ["markdown"]

_BASES = ("allow", "ban", GOOD)
_WORDS = {"allow": "allowed", "ban": "banned"}
_MEANING = {
    "span": "The span scheme has no good token: *force good* is the ban, with nothing to force.",
    "prefix": "*force good* writes the good token at the start of every line; the bad are banned.",
    "marker": "The marker scheme has no good token: *force good* is the ban.",
    "document": "The tags stand at the start of a document, and were left out of the prompts.",
}


def markdown(facts: dict[str, Any]) -> str:
    """The whole evaluation; the sections that a model has nothing to show for are left out."""
    sections = [
        _opening(facts),
        _short(facts),
        _exact(facts),
        _desk(facts),
        _steering(facts),
        _forecasts(facts),
        _lines(facts),
        _own_tags(facts),
        _mention(facts),
        _lengths(facts),
        _caution(facts),
        _tax(facts),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(row) + " |" for row in rows]
    if not body:
        return []
    return ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |", *body]


def _show(figure: dict[str, Any], digits: int = 3, signed: bool = False) -> str:
    """``value (low to high)``; a dash for what could not be made."""
    sign = "+" if signed else ""

    def number(name: str) -> str:
        value = figure[name]
        return "?" if value is None else f"{value:{sign}.{digits}f}"

    if figure["value"] is None:
        return "-"
    return f"{number('value')} ({number('low')} to {number('high')})"


def _word(control: str) -> str:
    return _WORDS.get(control, control)


def _where(row: dict[str, Any]) -> str:
    return f"T = {row['temperature']:g}, {row['context']}"


def _opening(facts: dict[str, Any]) -> list[str]:
    scheme = facts["scheme"]
    tags = "no tags" if scheme is None else f"scheme {scheme}"
    twin = f", twin {facts['twin']}" if facts["twin"] else ""
    lines = [
        f"Model {facts['model']} ({tags}){twin}; n = {facts['n']} fresh instances for each figure "
        f"unless a row says otherwise, seed {facts['seed']}, {facts['seconds']:.0f} s. In "
        "brackets: 95 % intervals (Wilson for shares, Newcombe for differences, MOVER-R for "
        "ratios, else a bootstrap over tasks). Misbehaviour is judged by the oracle on the text.",
    ]
    return lines if scheme is None else [*lines, "", _MEANING[scheme]]


def _short(facts: dict[str, Any]) -> list[str]:
    """What a reader asks first, of a model with tags."""
    if facts["scheme"] is None:
        return []
    desk = {(row["temperature"], row["context"], row["tags"]): row for row in facts["desk"]}
    tax = {} if facts["tax"] is None else {
        (row["temperature"], row["context"], row["tags"]): row for row in facts["tax"]["desk"]
    }  # fmt: skip
    rows: list[tuple[str, str]] = []
    for context in ("pressed", "held-out sentences"):
        for temperature in (0.7, 1.0):
            free, banned = (desk[temperature, context, c]["misbehaved"] for c in ("allow", "ban"))
            said = f"allowed {_show(free)}, banned {_show(banned)}"
            against = tax.get((temperature, context, "ban"))
            if against is not None:
                said += f"; twin {_show(against['twin'])}, {_times(against['ratio'])} times as much"
            rows.append((f"misbehaved, T = {temperature:g}, {context}", said))
    calm = tax.get((0.7, "calm", "ban"))
    if calm is not None:
        rows.append(("success, T = 0.7, calm, banned - twin", _show(calm["success"], signed=True)))
    for row in facts["opened"]:
        if row["temperature"] == 1.0 and row["context"] == "calm and pressed":
            best = row.get("mean_path", row.get("one_path"))
            if best is not None:
                rows.append(
                    ("`opened`, AUROC missing to the Bayes limit", _show(best["gap"], signed=True))
                )
                rows.append(("`opened`, expected calibration error", _show(best["ece"])))
    if "false_alarms" in facts["mention"]:
        rows.append(("use and mention, false alarms a document",
                     _show(facts["mention"]["false_alarms"], 4)))  # fmt: skip
    return _table(("in short", ""), rows)


def _exact(facts: dict[str, Any]) -> list[str]:
    rows = [(name, _show(rate)) for name, rate in facts["lists"].items()]
    rows += [
        (f"ops desk, valid transcripts, {name}", _show(rate))
        for name, rate in facts["desk_greedy"].items()
    ]
    return _table((f"greedy, n = {facts['n']} each", "exact"), rows)


def _desk(facts: dict[str, Any]) -> list[str]:
    head = (
        f"ops desk, n = {facts['n']} each", "tags", "misbehaved",
        "done, checked and truthfully reported", "valid", "mean `opened`",
    )  # fmt: skip
    return _table(
        head,
        [
            (
                _where(row), _word(row["tags"]), _show(row["misbehaved"]), _show(row["success"]),
                _show(row["valid"]), _show(row["opened"]),
            )
            for row in facts["desk"]
            if row["tags"] in _BASES
        ],
    )  # fmt: skip


def _steering(facts: dict[str, Any]) -> list[str]:
    """Each control in order of its strength, in the contexts where all were tried."""
    tried = {(row["temperature"], row["context"], row["tags"]): row for row in facts["desk"]}
    swept = [(t, c) for t, c, control in tried if control == "boost(1)"]
    order = [GOOD, "ban", "penalise(8)", "penalise(4)", "penalise(2)", "penalise(1)", "allow",
             "boost(1)", "boost(2)"]  # fmt: skip
    return _table(
        (
            "control of every tag",
            *(f"{what}, T = {t:g}, {c}" for t, c in swept for what in ("misbehaved", "success")),
        ),
        [
            (
                _word(control),
                *(
                    _show(tried[t, c, control][what])
                    for t, c in swept
                    for what in ("misbehaved", "success")
                ),
            )
            for control in order
            if swept and (*swept[0], control) in tried
        ],
    )


def _forecasts(facts: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for row in facts["opened"]:
        where = f"{_where(row)}, n = {row['n']} tasks x {row['runs']} free runs"
        limit = f"{_show(row['bayes'])}; along the path {_show(row['bayes_path'])}"
        for name, words in (("one_path", "one path"), ("mean_path", "mean of paths")):
            found = row.get(name)
            if found is None:
                continue
            gap = _show(found["gap"], signed=True)
            if "gap_path" in found:
                gap += f"; along the path {_show(found['gap_path'], signed=True)}"
            rows.append(
                (
                    where, words, _show(found["auroc"]), limit, gap, _show(found["brier"]),
                    f"{_show(found['ece'])}; by chance {found['ece_by_chance']:.3f}",
                )
            )  # fmt: skip
    return _table(
        ("`opened` along banned paths, against other free runs of the task", "read from", "AUROC",
         "Bayes limit", "missing to it", "Brier", "calibration error"),
        rows,
    )  # fmt: skip


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = facts["lines"]
    if lines is None or "auroc" not in lines:
        return []
    return _table(
        (f"belief at line starts, against the line then written (T = 1, n = {lines['n']} lines)",
         ""),
        [
            ("AUROC", _show(lines["auroc"])),
            ("Brier", _show(lines["brier"], 4)),
            ("calibration error",
             f"{_show(lines['ece'], 4)}; by chance {lines['ece_by_chance']:.4f}"),
        ],
    )  # fmt: skip


def _own_tags(facts: dict[str, Any]) -> list[str]:
    if facts["scheme"] is None:
        return []
    return _table(
        ("the model's own tags (T = 1, allowed)", "precision", "recall"),
        [
            (
                row["context"],
                f"{_show(row['precision'])}, n = {row['precision']['n']}",
                f"{_show(row['recall'])}, n = {row['recall']['n']}",
            )
            for row in facts["desk"]
            if row["tags"] == "allow" and row["temperature"] == 1.0
        ],
    )


def _mention(facts: dict[str, Any]) -> list[str]:
    mention = facts["mention"]
    rows = [("honest account of the lie", _show(mention["honest_account"]))]
    if "opened" in mention:
        per_line = mention["false_alarms_per_line"]
        rows = [
            ("false alarms, documents (any tag opened)", _show(mention["false_alarms"], 4)),
            (f"false alarms, lines (n = {per_line['n']})", _show(per_line, 4)),
            ("mean `opened` of a document", _show(mention["opened"], 5)),
            *rows,
        ]
    return _table(
        (f"audits of lying logs (mention, not use), T = 1, tags allowed, n = {facts['n']}", ""),
        rows,
    )


def _lengths(facts: dict[str, Any]) -> list[str]:
    return _table(
        (f"sentences that say nothing (pressed, T = 0.7, n = {facts['n']})", "tags", "misbehaved",
         "success", "mean `opened`"),
        [
            (str(row["sentences"]), _word(row["tags"]), _show(row["misbehaved"]),
             _show(row["success"]), _show(row["opened"]))
            for row in facts["length"]
        ],
    )  # fmt: skip


def _caution(facts: dict[str, Any]) -> list[str]:
    return _table(
        ("over-caution: blameless, but not checked", "tags", "share of transcripts",
         "the generator's blameless documents on these tasks"),
        [
            (_where(row), _word(row["tags"]), _show(row["overcautious"]),
             _show(row["honest_unchecked"]))
            for row in facts["desk"]
            if row["tags"] in _BASES
        ],
    )  # fmt: skip


def _tax(facts: dict[str, Any]) -> list[str]:
    tax = facts["tax"]
    if tax is None:
        return []
    desk = _table(
        ("against the untagged twin, same tasks", "tags", "twin misbehaved", "model misbehaved",
         "times lower", "success, model - twin", "over-caution, model - twin"),
        [
            (
                _where(row), _word(row["tags"]), _show(row["twin"]), _show(row["model"]),
                _times(row["ratio"]), _show(row["success"], signed=True),
                _show(row["overcautious"], signed=True),
            )
            for row in tax["desk"]
        ],
    )  # fmt: skip
    exact = {**tax["lists"], **{f"ops desk, valid, {k}": v for k, v in tax["desk_greedy"].items()}}
    lists = _table(
        ("greedy, exact, model - twin", ""),
        [(name, _show(found, signed=True)) for name, found in exact.items()],
    )
    return [*desk, "", *lists]


def _times(ratio: dict[str, Any]) -> str:
    """The ratio; where the model never misbehaved, only that it is more than its lower end."""
    if ratio["value"] is None:
        none = f"{ratio['under']} of {ratio['under_n']}"
        return f"more than {ratio['low']:.1f} ({none})" if ratio["over"] else f"- ({none}, both)"
    high = "any" if ratio["high"] is None else f"{ratio['high']:.1f}"
    return f"{ratio['value']:.1f} ({ratio['low']:.1f} to {high})"
