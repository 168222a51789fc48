"""``secateur policy``: read policies, refuse the unsound, show what they do."""

import json
from typing import Annotated

import typer

from ..gates.policy import Policy
from ..runtime.engines.checkpoint import find_model, read_vocabulary
from ..runtime.screen import Console, Words
from ..runtime.settings import Settings
from .terminal import Fact, Rows, one_line

__all__ = ["app"]

app = typer.Typer(help="Check and show policies.", no_args_is_help=True)

PolicyArgument = Annotated[
    str, typer.Argument(help="A YAML file, or a shipped policy: observe, prune, strict.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model whose tags the policy must fit.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(file: PolicyArgument, model: ModelOption = None, json_: JsonOption = False) -> None:
    """Refuse a policy that is wrong, with file, line and remedy; say its digest when it is right.

    Example: secateur policy check my-policy.yaml
    """
    policy = _load(file, model)
    if json_:
        print(json.dumps({"ok": True, "name": policy.name, "digest": policy.digest}))
    else:
        print(
            f"{one_line(policy.name)}: fine. {len(policy.rules)} rules, digest {policy.digest[:16]}"
        )


@app.command()
def show(
    file: PolicyArgument,
    context: Annotated[
        str | None, typer.Option(help="Show the policy as it stands in this context.")
    ] = None,
    model: ModelOption = None,
    json_: JsonOption = False,
) -> None:
    """What a policy does: the control of every tag and the rules, in a context if you like.

    Example: secateur policy show strict
    """
    policy = _load(file, model)
    controls, rules = policy.controls(context), policy.rules_for(context)
    if json_:
        print(
            json.dumps(
                {
                    "name": policy.name,
                    "digest": policy.digest,
                    "controls": {tag: str(control) for tag, control in controls.items()},
                    "locked": sorted(policy.locked),
                    "rules": [rule.model_dump(mode="json") for rule in rules],
                    "regrow": policy.regrow,
                    "on_broken": policy.on_broken,
                }
            )
        )
        return
    console = Console()
    console.print(Words.assemble((one_line(policy.name), "bold"), f"  {policy.digest[:16]}"))
    if policy.description:
        console.print(Fact("", policy.description))
    tags = Rows("tag", "control", "locked", box=None, pad_edge=False)
    for tag, control in controls.items():
        tags.add_row(tag, str(control), "locked" if tag in policy.locked else "")
    table = Rows("tag", "reading", "at", "action", "scope", box=None, pad_edge=False)
    for rule in rules:
        action = f"{rule.action} x{rule.retries}" if rule.retries else str(rule.action)
        table.add_row(rule.tag, rule.reading, f"{rule.at:g}", action, rule.scope)
    console.print(tags, "", table)


def _load(file: str, model: str | None) -> Policy:
    folder = find_model(model or Settings().model)
    return Policy.load(file, read_vocabulary(folder))
