"""``secateur models``: what ``--model`` understands: shipped models, and presets."""

import json
from typing import Annotated

import typer

from ..gates.vocabulary import Vocabulary
from ..models.presets import Preset, presets
from ..runtime.engines.checkpoint import shipped_models
from ..runtime.screen import Console, Words
from .terminal import Fact, one_line

__all__ = ["models"]


def models(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the shipped models and the presets for public checkpoints, with how to read them.

    Example: secateur run path/to/agent.py:agent TASK --model hungry_saha
    """
    found = [
        {
            "name": folder.name,
            "kind": "shipped",
            "vocabulary": Vocabulary.load(folder / "vocabulary.json").model_dump(mode="json"),
            "folder": str(folder),
        }
        for folder in shipped_models()
    ]
    found += [_described(preset) for preset in presets().values()]
    if json_:
        print(json.dumps(found))
        return
    console = Console()
    for model in found:
        console.print(Words.assemble((one_line(model["name"]), "bold"), f"  {model['kind']}"))
        for label in ("hub", "about", "tags", "reading", "licence", "paper", "unverified", "here"):
            said = _said(model, label)
            if said:
                console.print(Fact(f"  {label:10}", said))


def _described(preset: Preset) -> dict[str, object]:
    """A preset with the place of its checkpoint on this machine, where it was downloaded."""
    folder = None if preset.unverified else preset.cached()
    return {
        **preset.model_dump(mode="json"),
        "kind": "preset",
        "folder": None if folder is None else str(folder),
    }


def _said(model: dict[str, object], label: str) -> str:
    match label:
        case "tags":
            vocabulary = model.get("vocabulary")
            if vocabulary is None:
                return ""
            tags = Vocabulary.model_validate(vocabulary).tags
            return "; ".join(
                f"{tag.name} ({tag.scheme}, {tag.unit}"
                + (f", {len(tag.bands)} bands" if tag.bands else "")
                + ")"
                for tag in tags
            )
        case "here":
            if model["kind"] == "preset" and not model["unverified"] and not model["folder"]:
                return f"not on this machine: hf download {model['hub']}"
            return str(model["folder"] or "")
        case _:
            return str(model.get(label) or "")
