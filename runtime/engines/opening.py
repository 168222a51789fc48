"""Which engine a name or an address means."""

from pathlib import Path

from ..redaction import redacted
from .protocol import Engine, EngineError

__all__ = ["open_engine"]


def open_engine(engine: str, model: str | Path) -> Engine:
    """Open ``local`` (the model in this process), or the server at an ``http(s)://`` address.

    Raises :class:`EngineError` for anything else, and for what cannot be loaded or reached.
    """
    if engine == "local":
        from .local.engine import LocalEngine

        return LocalEngine.load(model)
    if engine.startswith(("http://", "https://")):
        from .vllm.engine import VLLMEngine

        return VLLMEngine.connect(engine, model)
    raise EngineError(
        f"engine {redacted(engine)!r} is unknown: give 'local' (transformers in process), or the "
        "address of a server (http://HOST:PORT)"
    )
