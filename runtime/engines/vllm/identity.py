"""Which model a server serves: asked when an engine connects, and whenever that may have changed.

A server can be restarted under the same address with another checkpoint. Its name alone does not
show that, so text is split by its tokenizer, and a fixed text is scored by its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....agents.prompt import Special, Text
from ..protocol import EngineError
from ..tokenizer import TagTokenizer
from ..weights import SAME_NATS, apart
from .replies import Questions, read_scores
from .wire import COMPLETIONS, RefusedError, Wire

__all__ = ["Identity", "identify", "probe_ids"]

_PROBE = "The quick brown fox restarts 3 services, then says so. it is up\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one served model from another."""

    name: str
    """Under which requests ask for it."""
    root: str
    """Where the server says it comes from."""
    context_length: int
    version: str
    fingerprint: str | None
    """The server's own mark of its version and configuration, where it sends one."""
    logs: tuple[float, ...]
    """log p of a fixed text's tokens."""

    def difference(self, now: "Identity") -> str | None:
        """How the server that answers ``now`` differs from this one; None where it is the same."""
        for what in ("name", "root", "context_length", "version", "fingerprint"):
            was, is_ = getattr(self, what), getattr(now, what)
            if was != is_:
                return f"its {what.replace('_', ' ')} is {is_!r} and was {was!r}"
        nats = apart(self.logs, now.logs)
        if nats > SAME_NATS:
            return f"a fixed text's tokens are {nats:.2f} nats apart"
        return None


async def identify(wire: Wire, folder: Path, tokenizer: TagTokenizer, bos: str | None) -> Identity:
    """Ask the server what it is, and that it serves the model of ``folder``.

    Raises :class:`EngineError` where it is another model, or another tokenizer.
    """
    served = _served(await wire.json("GET", "/v1/models"), folder, wire)
    name = served["id"]
    await _check_tokenizer(wire, name, folder, tokenizer)
    text = probe_ids(tokenizer, bos)
    body = {"model": name, "prompt": text, "max_tokens": 1, "prompt_logprobs": 0}
    scored = await wire.json("POST", COMPLETIONS, body)
    asked = Questions(name, (), frozenset(), wire.fault)
    fingerprint, root = scored.get("system_fingerprint"), served.get("root")
    return Identity(
        name=name,
        root=root if isinstance(root, str) else "unknown",
        context_length=_length(served, wire.fault),
        version=await _version(wire),
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        logs=tuple(read_scores(scored, [text], asked)[0]),
    )


def probe_ids(tokenizer: TagTokenizer, bos: str | None) -> list[int]:
    """The fixed text whose probabilities tell one model's weights from another's."""
    return tokenizer.encode([*([Special(bos)] if bos else []), Text(_PROBE)])


def _served(reply: dict[str, Any], folder: Path, wire: Wire) -> dict[str, Any]:
    """The served model that carries the folder's name, or comes from it."""
    data = reply.get("data")
    cards = [c for c in data if isinstance(c, dict)] if isinstance(data, list) else []
    if not cards:
        raise wire.fault("lists no model at /v1/models")
    wanted = folder.resolve().name
    cards = [card for card in cards if isinstance(card.get("id"), str)]
    for card in cards:
        for stated in (card["id"], card.get("root")):
            if isinstance(stated, str) and Path(stated).name == wanted:
                return card
    names = ", ".join(card["id"][:80] for card in cards[:8]) or "models without names"
    raise EngineError(
        f"the server at {wire.url} serves {names}, not {wanted!r}; give --model the folder of the "
        f"served model, or serve it with --served-model-name {wanted}"
    )


def _length(served: dict[str, Any], fault: Callable[[str], EngineError]) -> int:
    length = served.get("max_model_len")
    if type(length) is not int or length < 1:
        raise fault("does not say its max_model_len at /v1/models")
    return length


async def _check_tokenizer(wire: Wire, name: str, folder: Path, tokenizer: TagTokenizer) -> None:
    literals = tokenizer.vocabulary.vocabulary.literals
    ours = tokenizer.encode([Text(_PROBE), *map(Special, literals)])
    body = {"model": name, "prompt": _PROBE + "".join(literals), "add_special_tokens": False}
    theirs = (await wire.json("POST", "/tokenize", body)).get("tokens")
    if theirs != ours:
        raise EngineError(
            f"the server at {wire.url} splits text otherwise than {folder}/tokenizer.json; serve "
            "the folder that --model names, with its own tokenizer"
        )


async def _version(wire: Wire) -> str:
    try:
        found = (await wire.json("GET", "/version")).get("version")
    except RefusedError as refused:
        if refused.status != 404:
            raise
        found = None
    return found if isinstance(found, str) else "unknown"
