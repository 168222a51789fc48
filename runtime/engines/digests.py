"""What makes a checkpoint folder this model and no other: the files that are read, as a digest."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...gates.canonical import digest

__all__ = ["folder_digests", "weights_of"]

_FIRST = ("*.safetensors", "pytorch_model*.bin")
"""The weights files that version 0.1 knew."""
_MORE = ("*.bin", "*.pt", "*.pth", "*.gguf")
_INDEXES = "*.index.json"
_BESIDE = ("adapter_config.json", "added_tokens.json", "chat_template*.j*", "*chat_templates/*")
"""Files whose every byte counts where they are there."""
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
"""Files of which counts what says more than ``config.json`` does."""
_ROLES = ("bos", "eos", "pad")
_IDLE = frozenset(
    {"_from_model_config", "transformers_version", "output_attentions", "output_hidden_states"}
    | {"use_cache", "model_max_length", "name_or_path"}
)
"""Settings that no engine reads."""
_USUAL = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
"""Settings as version 0.1 took them for granted."""


def weights_of(folder: Path) -> list[Path]:
    """Every weights file of the folder, and those that an index or the configuration names."""
    return list({**_first(folder), **_named(folder, _config(folder))}.values())


def folder_digests(folder: Path) -> tuple[str, str]:
    """SHA-256 over all that a model is read from, and the same as version 0.1 made it.

    Each is over the name and SHA-256 of ``config.json`` and every weights file, by name. The first
    goes on with what 0.1 left out: weights that an index or the configuration names, wherever they
    are, indexes, adapters, chat templates, code that the configuration names, and the settings of
    tokenizer and generation. Where there is nothing of the kind, or it says only what
    ``config.json`` says, both are the same.
    """
    config = _config(folder)
    first = {"config.json": folder / "config.json", **_first(folder)}
    whole = hashlib.sha256()
    for name, path in first.items():
        whole.update(_line(name, _sha256(path)))
    former = whole.hexdigest()
    more = {**_named(folder, config), **_beside(folder, config)}
    for name, path in sorted(more.items()):
        whole.update(_line(name, _sha256(path)))
    for name, said in _settings(folder, config):
        whole.update(_line(name, digest(said)))
    return whole.hexdigest(), former


def _first(folder: Path) -> dict[str, Path]:
    return {
        path.name: path
        for path in sorted(found for pattern in _FIRST for found in folder.glob(pattern))
    }


def _named(folder: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """Weights that 0.1 did not know of, by their place as it is spelt."""
    found = {path.name: path for pattern in _MORE for path in folder.glob(pattern)}
    indexes = list(folder.glob(_INDEXES))
    stated = config.get("transformers_weights")
    if isinstance(stated, str):
        found[stated] = folder / stated
        indexes += [folder / stated] if stated.endswith(".json") else []
    for index in indexes:
        named = _json(index).get("weight_map")
        for place in named.values() if isinstance(named, dict) else ():
            for base in (index.parent, folder) if isinstance(place, str) else ():
                found[os.path.relpath(base / place, folder)] = base / place
    known = _first(folder)
    return {n: path for n, path in found.items() if path.is_file() and n not in known}


def _beside(folder: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    patterns = [_INDEXES, *_BESIDE, *(["*.py"] if "auto_map" in config else [])]
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return {os.path.relpath(path, folder): path for path in found if path.is_file()}


def _settings(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What each file of settings says that does not follow from the files of 0.1."""
    ids: dict[str, int] | None = None
    for name in _SETTINGS:
        path = folder / name
        if not path.is_file():
            continue
        if ids is None:
            ids = _special_ids(folder)
        said = {
            key: value
            for key, value in _json(path).items()
            if key not in _IDLE
            and (key not in _USUAL or value != _USUAL[key])
            and not _follows(key, value, config, ids)
        }
        if said:
            # NaN is JSON to Python, and to no digest.
            yield name, json.dumps(said, sort_keys=True)


def _follows(key: str, value: Any, config: Mapping[str, Any], ids: Mapping[str, int]) -> bool:
    """Whether a role is the one that ``config.json`` names."""
    role, _, rest = key.partition("_token")
    if role not in _ROLES or rest not in ("", "_id"):
        return value is None
    stated = config.get(f"{role}_token_id")
    if rest == "_id":
        return value is None or value == stated
    literal = value.get("content") if isinstance(value, dict) else value
    first = stated[0] if isinstance(stated, list) and stated else stated
    return literal is None or (first is not None and ids.get(literal) == first)


def _special_ids(folder: Path) -> dict[str, int]:
    added = _json(folder / "tokenizer.json").get("added_tokens")
    listed = (
        [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    )
    return {str(token.get("content")): token.get("id", -1) for token in listed}


def _config(folder: Path) -> dict[str, Any]:
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    """The object of a file; where there is none, all that can be said of its bytes."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"bytes": _sha256(path)}


def _line(name: str, part: str) -> bytes:
    # A name with a line end in it would be two lines.
    name = name if name.isprintable() else digest(name)
    return f"{name} {part}\n".encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
