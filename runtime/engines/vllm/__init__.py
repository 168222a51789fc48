"""The engine over a vLLM server, or another that speaks its wire."""

from .engine import VLLMEngine
from .wire import Patience

__all__ = ["Patience", "VLLMEngine"]
