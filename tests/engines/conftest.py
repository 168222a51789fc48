"""One tiny engine for all tests of this room."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from secateur.agents.prompt import Sampling, Special, Text
from secateur.gates.control import Control
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import Request


@pytest.fixture
async def engine(tiny_checkpoint: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(tiny_checkpoint, device="cpu")
    yield engine
    await engine.aclose()


@pytest.fixture
def ask(engine: LocalEngine) -> Callable[..., Request]:
    """A request for 24 tokens after a short text, with nothing that stops it early."""

    def request(
        text: str = "I restarted web",
        *,
        seed: int = 0,
        controls: Mapping[str, Control] | None = None,
        temperature: float = 0.7,
        top_p: float = 1.0,
        max_tokens: int = 24,
        stop: tuple[str, ...] = (),
    ) -> Request:
        prompt = engine.encode([Special("<|bos|>"), Text(text)])
        sampling = Sampling(temperature, top_p, max_tokens, stop)
        return Request(tuple(prompt), sampling, seed, controls or {})

    return request
