"""Public tag-pretrained checkpoints: what their tags are, where they stand, how to read them.

A checkpoint of these has no ``vocabulary.json``; its preset stands in. The weights are not
shipped and never downloaded: they are looked up in the Hugging Face cache, or in a folder of the
preset's name.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..gates.errors import SecateurError
from ..gates.vocabulary import BoundVocabulary, Vocabulary

__all__ = ["Preset", "PresetError", "find_preset", "preset_of", "presets"]


class PresetError(SecateurError):
    """A preset that cannot be used, or a checkpoint that is not the preset's."""


class Preset(BaseModel):
    """One public checkpoint, as ``models/presets/NAME.yaml`` describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """``owner/name`` on the Hugging Face hub."""
    about: str
    stage: Literal["pretrained", "fine-tuned"]
    licence: str
    paper: str
    architecture: str | None = None
    """``model_type`` in the checkpoint's ``config.json``."""
    tokens: dict[str, int] = {}
    """Every tag token and its id."""
    vocabulary: Vocabulary | None = None
    reading: str | None = None
    """What to read, where, and what to ban."""
    overrides: dict[str, Any] = {}
    """Corrections of ``config.json`` that vLLM needs (``--hf-overrides``)."""
    unverified: str | None = None
    """Why it cannot be used yet, and what would change that."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.unverified is not None:
            if self.vocabulary is not None or self.tokens:
                raise ValueError("an unverified preset states no tokens")
        elif self.vocabulary is None or self.reading is None or self.architecture is None:
            raise ValueError("a preset needs vocabulary, tokens, reading and architecture")
        elif set(self.vocabulary.literals) != self.tokens.keys():
            raise ValueError("'tokens' must give the id of each token of the vocabulary")
        return self

    def usable(self) -> Vocabulary:
        """The vocabulary. Raises :class:`PresetError` for an unverified preset."""
        if self.vocabulary is None:
            raise PresetError(f"preset {self.name!r} ({self.hub}) is unverified: {self.unverified}")
        return self.vocabulary

    def check(self, folder: Path, model_type: object, bound: BoundVocabulary) -> None:
        """Refuse a checkpoint that is another architecture, or whose tags have other ids.

        Raises :class:`PresetError`.
        """
        if model_type != self.architecture:
            raise PresetError(
                f"{folder}: config.json says model_type {model_type!r} and preset {self.name!r} is "
                f"{self.architecture!r}: it is not {self.hub}; give that checkpoint, or write a "
                "vocabulary.json for this one"
            )
        for token, id_ in self.tokens.items():
            if bound.ids[token] != id_:
                raise PresetError(
                    f"{folder}: {token!r} has id {bound.ids[token]} in its tokenizer and {id_} in "
                    f"preset {self.name!r}: it is not the tokenizer of {self.hub}; use that one, "
                    "or write a vocabulary.json for this checkpoint"
                )

    def cached(self) -> Path | None:
        """The checkpoint's folder in the Hugging Face cache, if it was downloaded."""
        try:
            from huggingface_hub import try_to_load_from_cache
        except ModuleNotFoundError:
            return None
        found = try_to_load_from_cache(self.hub, "config.json")
        return Path(found).parent if isinstance(found, str) else None

    def locate(self) -> Path:
        """The checkpoint's folder on this machine. Raises :class:`PresetError`."""
        self.usable()
        folder = self.cached()
        if folder is None:
            raise PresetError(
                f"preset {self.name!r} is not on this machine: download it with 'hf download "
                f"{self.hub}', or give the path of its folder, which must be named {self.name!r}"
            )
        return folder


@cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    found = {}
    for file in sorted((Path(__file__).parent / "presets").glob("*.yaml")):
        described = yaml.safe_load(file.read_text("utf-8"))
        found[file.stem] = Preset.model_validate({"name": file.stem, **described})
    return found


def find_preset(name: str) -> Preset | None:
    """The preset of a name (``hungry_saha``) or of a hub name (``tomekkorbak/hungry_saha``)."""
    known = presets()
    return known.get(name) or next((one for one in known.values() if one.hub == name), None)


def preset_of(folder: Path) -> Preset | None:
    """The preset that a checkpoint's folder is named after, or whose place in the cache it is."""
    whole = folder.expanduser().absolute()
    if whole.name in presets():
        return presets()[whole.name]
    # .../models--OWNER--NAME/snapshots/REVISION
    kept = whole.parent.parent.name if whole.parent.name == "snapshots" else ""
    if not kept.startswith("models--"):
        return None
    return find_preset(kept.removeprefix("models--").replace("--", "/", 1))
