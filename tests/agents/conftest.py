"""The real model, loaded once."""

import pytest
import torch

from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.settings import Settings


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The shipped model, or the one that ``SECATEUR_MODEL`` names."""
    torch.set_num_threads(1)
    return open_engine("local", Settings().model)
