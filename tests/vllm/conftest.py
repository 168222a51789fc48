"""A real vLLM server for all tests of this room; they are skipped where vLLM is not installed."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from secateur.runtime.engines.vllm.serving.launch import (
    LaunchPlan,
    ServerError,
    find_vllm,
    plan_launch,
)
from secateur.runtime.engines.vllm.serving.server import VllmServer

MODEL = "seedling"


@pytest.fixture(scope="session")
def vllm_python(lacking: Callable[[str, str], NoReturn]) -> str:
    """The Python of the environment with vLLM."""
    try:
        return find_vllm(os.environ.get("SECATEUR_VLLM_PYTHON")).python
    except ServerError as error:
        lacking("vllm", f"make test-vllm runs these: {str(error).partition('. ')[0]}")


@pytest.fixture(scope="session")
def launch(vllm_python: str) -> Callable[..., LaunchPlan]:
    """Plans for servers of the shipped model on free ports, with one thread each."""

    def plan(*extra: str) -> LaunchPlan:
        port = free_port()
        return plan_launch(MODEL, port=port, threads=1, python=vllm_python, extra=extra)

    return plan


@pytest.fixture(scope="session")
def vllm_server(
    launch: Callable[..., LaunchPlan], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """The server that tests share. Whoever kills one starts his own."""
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with VllmServer.start(launch(), log=log) as server:
        server.wait_ready(timeout_s=600)
        yield server


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The folder of the model that the server serves."""
    from secateur.runtime.engines.checkpoint import find_model

    return find_model(MODEL)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]
