"""A checkpoint folder, read and checked: model, tokenizer, vocabulary, and their digests."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ... import models
from ...gates.vocabulary import Vocabulary
from ...models.presets import find_preset, preset_of
from ..redaction import redacted
from .digests import folder_digests, weights_of
from .protocol import EngineError, EngineInfo
from .tokenizer import TagTokenizer

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "find_model",
    "load_checkpoint",
    "load_model",
    "load_tokenizer",
    "model_digest",
    "name_of",
    "read_config",
    "read_vocabulary",
    "roles_of",
    "shipped_models",
]

Precision = Literal["float32", "bfloat16", "float16"]

_SHIPPED = Path(models.__file__).parent


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with all that decoding needs to know about it."""

    model: "torch.nn.Module"
    tokenizer: TagTokenizer
    info: EngineInfo
    eos: frozenset[int]
    """Ids that end a generation."""
    never: tuple[int, ...]
    """Ids that are never generated: beginning of document and padding."""
    width: int
    """Number of logits, and of embeddings: ids are below it."""


def find_model(name: str | Path) -> Path:
    """The folder of a shipped model, of a path, or of a preset that was downloaded.

    Raises :class:`EngineError`, or ``PresetError`` for a preset that is not here.
    """
    shipped_config = _SHIPPED / name / "config.json"
    if isinstance(name, str) and Path(name).name == name and shipped_config.is_file():
        return _SHIPPED / name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    preset = find_preset(str(name))
    if preset is not None:
        return preset.locate()
    shipped = ", ".join(folder.name for folder in shipped_models()) or "none"
    raise EngineError(
        f"no model {redacted(str(name))!r}: give the path of a checkpoint folder, or the name of a "
        f"shipped model ({shipped}) or of a preset ('secateur models' lists them)"
    )


def shipped_models() -> list[Path]:
    """The folders of the models that come with the package, by name."""
    return sorted(path.parent for path in _SHIPPED.glob("*/config.json"))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The folder's ``vocabulary.json``, or the vocabulary of the preset that the folder is.

    Raises ``VocabularyError``, or ``PresetError`` for a preset that is not verified.
    """
    preset = preset_of(folder)
    path = folder / "vocabulary.json"
    return Vocabulary.load(path) if path.is_file() or preset is None else preset.usable()


def load_tokenizer(folder: Path, vocabulary: Path | None = None) -> TagTokenizer:
    """The folder's tokenizer with its tags bound; a preset's checkpoint must have the preset's ids.

    ``vocabulary`` is a file that stands in for the folder's own. Raises :class:`EngineError`,
    ``VocabularyError`` or ``PresetError``.
    """
    if vocabulary is not None:
        return TagTokenizer.load(folder, Vocabulary.load(vocabulary))
    tokenizer = TagTokenizer.load(folder, read_vocabulary(folder))
    preset = preset_of(folder)
    if preset is not None and not (folder / "vocabulary.json").is_file():
        preset.check(folder, read_config(folder).get("model_type"), tokenizer.vocabulary)
    return tokenizer


def name_of(folder: Path) -> str:
    """What the model is called: its preset's name, else its folder's."""
    preset = preset_of(folder)
    return folder.resolve().name if preset is None else preset.name


def model_digest(folder: Path) -> str:
    """SHA-256 over all that the model of a folder is read from (see :mod:`.digests`)."""
    return folder_digests(folder)[0]


def load_checkpoint(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: Precision = "float32",
    vocabulary: Path | None = None,
) -> Checkpoint:
    """Load a causal LM folder: ``config.json``, weights, ``tokenizer.json``, ``vocabulary.json``.

    ``device`` is ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. Nothing is
    downloaded. Raises :class:`EngineError` or ``VocabularyError`` naming what is missing.
    """
    folder = find_model(name)
    config = read_config(folder)
    if not weights_of(folder):
        raise EngineError(
            f"{folder}: no weights (model.safetensors); save the model there (save_pretrained)"
        )
    tokenizer = load_tokenizer(folder, vocabulary)
    now, former = folder_digests(folder)
    model = _ready(folder, device, dtype)
    width = int(model.get_input_embeddings().num_embeddings)
    if tokenizer.size > width:
        raise EngineError(
            f"{folder}: tokenizer.json has {tokenizer.size} tokens and the model {width}: use the "
            "tokenizer the model was pretrained with"
        )
    roles = roles_of(folder, tokenizer, config)
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(length, int):
        raise EngineError(f"{folder}/config.json: no max_position_embeddings; state the context")
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        info=EngineInfo(
            engine="local",
            model=name_of(folder),
            model_digest=now,
            former_digest=former,
            compared="weights compared",
            tokenizer_digest=tokenizer.digest,
            vocabulary=tokenizer.vocabulary,
            context_length=length,
            bos=tokenizer.token(next(iter(roles["bos"]), None)),
            eos=tokenizer.token(next(iter(roles["eos"]), None)),
        ),
        eos=frozenset(roles["eos"]),
        never=tuple({*roles["bos"], *roles["pad"]} - set(roles["eos"])),
        width=width,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``. Raises :class:`EngineError`."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EngineError(
            f"{path}: not there; a checkpoint folder has config.json, weights, tokenizer.json "
            "and vocabulary.json (save_pretrained writes the first three)"
        ) from None
    except ValueError as error:
        raise EngineError(f"{path}: not JSON ({error}); save the model again") from None


def _libraries() -> tuple[Any, Any]:
    """torch and transformers. Raises :class:`EngineError` where they are not installed."""
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the local engine needs {error.name}: pip install 'secateur[local]', or give the URL "
            "of a server with --engine"
        ) from None
    return torch, transformers


def load_model(folder: Path, dtype: Precision) -> Any:
    """The causal language model of a folder, with all of its weights, on the CPU.

    Nothing is downloaded. Raises :class:`EngineError`.
    """
    torch, transformers = _libraries()
    with _quiet(transformers):
        try:
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # damaged files raise whatever their reader raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"{folder}: transformers cannot load it ({reason}); save the model again"
            ) from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        # transformers fills these with random numbers and only warns.
        raise EngineError(
            f"{folder}: the weights lack {missing[0]!r} ({len(missing)} in all); save the model "
            "again"
        )
    return model


def _ready(folder: Path, device: str, dtype: Precision) -> Any:
    """The model on its device, if the engine can batch it."""
    torch, _ = _libraries()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"device {device!r}: torch sees no CUDA here; use device 'cpu'")
    model = load_model(folder, dtype)
    if model._is_stateful:
        raise EngineError(
            f"{folder}: {model.config.model_type} keeps a recurrent state, which this engine does "
            "not batch; serve it with vLLM and give its URL with --engine"
        )
    try:
        return model.to(device).eval()
    except RuntimeError as error:
        raise EngineError(f"device {device!r}: {str(error).splitlines()[0]}; use 'cpu'") from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal while it loads."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def roles_of(
    folder: Path, tokenizer: TagTokenizer, config: dict[str, Any]
) -> dict[Literal["bos", "eos", "pad"], list[int]]:
    """Ids of ``bos``, ``eos`` and ``pad`` as the folder states them (a role may have none)."""
    path = folder / "tokenizer_config.json"
    try:
        named = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise EngineError(f"{path}: not JSON ({error}); save the tokenizer again") from None
    roles: dict[Literal["bos", "eos", "pad"], list[int]] = {"bos": [], "eos": [], "pad": []}
    for role, ids in roles.items():
        token = named.get(f"{role}_token")
        literal = token.get("content") if isinstance(token, dict) else token
        if literal in tokenizer.specials:
            ids.append(tokenizer.specials[literal])
        stated = config.get(f"{role}_token_id")
        for id_ in stated if isinstance(stated, list) else [stated]:
            if id_ is not None and tokenizer.is_special(id_) and id_ not in ids:
                ids.append(id_)
    return roles
