"""Which engine a name or an address means."""

from pathlib import Path

from .protocol import Engine, EngineError

__all__ = ["open_engine"]


def open_engine(engine: str, model: str | Path) -> Engine:
    """Open ``local`` (the model in this process). Raises :class:`EngineError` for anything else."""
    if engine == "local":
        from .local import LocalEngine  # torch is loaded only where it is used

        return LocalEngine.load(model)
    raise EngineError(
        f"engine {engine!r} is unknown: this version runs 'local' (transformers in process)"
    )
