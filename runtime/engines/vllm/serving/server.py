"""Start a vLLM server, wait until it generates, and stop all of it."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ....redaction import redacted
from ...protocol import EngineError
from .launch import LaunchPlan, ServerError

__all__ = ["VllmServer"]

_STOP_S = 20.0

_WARDEN = r"""
read -r group || exit 0
read -r _
kill -TERM "-$group" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -0 "-$group" 2>/dev/null || exit 0
  sleep 1
done
kill -KILL "-$group" 2>/dev/null
"""
"""Ends the server's processes when the pipe from ours closes, however ours ended."""


class VllmServer:
    """A running vLLM server and all its processes; a context manager that stops them.

    Should this process end without a word, a warden that holds a pipe to it stops them too.
    """

    def __init__(self, plan: LaunchPlan, process: subprocess.Popen[bytes], log: Path) -> None:
        self.plan = plan
        self.log = log
        self._process = process
        self._warden = subprocess.Popen(
            ["/bin/sh", "-c", _WARDEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._warden.stdin is not None
        self._warden.stdin.write(f"{process.pid}\n".encode())
        self._warden.stdin.flush()

    @classmethod
    def start(cls, plan: LaunchPlan, *, log: Path | None = None) -> Self:
        """Start it; its output goes to ``log`` (a temporary file unless given).

        Raises :class:`ServerError` where the port is taken.
        """
        _check_port(plan.host, plan.port)
        if log is None:
            handle, name = tempfile.mkstemp(prefix="secateur-serve-", suffix=".log")
            os.close(handle)
            log = Path(name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                plan.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **plan.environment},
                start_new_session=True,  # a group of its own, which can be ended as a whole
            )
        return cls(plan, process, log)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.plan.url

    @property
    def group(self) -> int:
        """The process group of the server and its workers."""
        return self._process.pid

    def wait_ready(
        self,
        *,
        timeout_s: float = 1800.0,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """Return when a first token has been generated; ``progress`` is told each stage.

        Raises :class:`ServerError` with the end of the log when the server dies before.
        """
        deadline = time.monotonic() + timeout_s
        stage = ""
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerError(self._obituary())
            if time.monotonic() > deadline:
                raise ServerError(
                    f"vLLM did not answer within {timeout_s:.0f} s; give it more with --timeout, "
                    f"or read {self.log}"
                )
            if (now := self._stage()) != stage:
                stage = now
                progress(stage)
            time.sleep(0.25)
        progress("first token")  # kernels are compiled with the first request
        self._warm_up(max(1.0, deadline - time.monotonic()))

    def wait(self) -> None:
        """Return never while the server lives; raises :class:`ServerError` when it dies."""
        self._process.wait()
        raise ServerError(self._obituary())

    def stop(self) -> None:
        """End every process of the server; the port is free afterwards."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        with suppress(ProcessLookupError):  # workers that outlived their leader
            os.killpg(self.group, signal.SIGKILL)
        self._process.wait()
        self._warden.kill()
        assert self._warden.stdin is not None
        self._warden.stdin.close()
        self._warden.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            self._ask(2.0, "GET", "/health")
        except EngineError:
            return False
        return True

    def _warm_up(self, timeout_s: float) -> None:
        body = {"model": self.plan.served, "prompt": [0], "max_tokens": 2, "logprobs": 1}
        try:
            self._ask(timeout_s, "POST", "/v1/completions", body)
        except EngineError as error:
            if self._process.poll() is not None:
                raise ServerError(self._obituary()) from None
            raise ServerError(
                f"vLLM started but generates nothing ({error}); read {self.log}"
            ) from None

    def _ask(self, seconds: float, method: str, path: str, body: Any = None) -> None:
        """Have a path answer with success. Raises :class:`EngineError`."""
        from ..wire import Patience, Wire

        async def ask() -> None:
            wire = Wire(self.url, Patience(answer_s=seconds, first_s=seconds, retries=0))
            try:
                await wire.whole(method, path, body)
            finally:
                await wire.aclose()

        asyncio.run(ask())

    def _stage(self) -> str:
        text = self._tail(400)
        return next((said for mark, said in _STAGES if mark in text), "starting vLLM")

    def _tail(self, lines: int) -> str:
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, lines))

    def _obituary(self) -> str:
        """Why the server died, in one line: what its log says, and what to do."""
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = [line.strip() for line in self._tail(400).splitlines() if line.strip()]
        errors = [line for line in lines if _IS_ERROR.search(line) and not _IS_REMARK.search(line)]
        if code == -signal.SIGKILL:
            said = "something killed it, or the kernel did for want of memory"
            remedy = "lower --max-model-len if memory is short"
        elif code == -signal.SIGILL or any("SIGILL" in line for line in lines):
            said = "its kernels do not run on this processor"
            remedy = "add -- --dtype float32"
        else:
            last = [_unprefixed(line) for line in (errors or lines)[-2:]]
            said = " / ".join(dict.fromkeys(last)) or "its log is empty"
            why = "\n".join(errors)
            remedy = next((do for mark, do in _REMEDIES if re.search(mark, why)), "read the log")
        return f"vLLM died ({how}): {redacted(said)}; {remedy} ({self.log})"


_IS_ERROR = re.compile(r"\w(?:Error|Exception)\b.*:|\b[Ee]rror[:,]|\bERROR\b")
_IS_REMARK = re.compile(r"\b(?:INFO|WARNING|DEBUG) \d\d-\d\d ")

_STAGES = (
    ("Starting vLLM server", "opening the port"),
    ("GPU KV cache size", "warming up"),
    ("CPU KV cache size", "warming up"),
    ("Starting to load model", "loading the weights"),
    ("Initializing a V1 LLM engine", "starting the workers"),
    ("Resolved architecture", "reading the model"),
)
"""What the log says last, and what it means."""

_REMEDIES = (
    (
        r"libcudart|torchvision::nms|libtorchcodec|torchaudio",
        "CUDA builds beside a CPU torch: pip uninstall -y torchvision torchaudio torchcodec in "
        "vLLM's environment",
    ),
    (
        r"KV cache is needed|larger than the available KV cache|cache blocks",
        "lower --max-model-len, or raise VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU, or use more --gpus",
    ),
    (
        r"[Oo]ut ?[Oo]f ?[Mm]emory|Cannot allocate memory",
        "memory is short: lower --max-model-len, or use more --gpus",
    ),
    (
        r"greater than the derived max_model_len",
        "lower --max-model-len to what the model was made for",
    ),
    (r"[Aa]ddress already in use", "the port was taken meanwhile: choose another with --port"),
    (r"unrecognized arguments", "this vLLM has other options: vLLM 0.32 is known to work"),
    (
        r"tensor.parallel|must be divisible by",
        "the model's heads do not divide by --gpus: choose another number",
    ),
)


def _unprefixed(line: str) -> str:
    """A log line without vLLM's process, level, time and place."""
    line = re.sub(r"^\((?:\w|[-=. ])+\)\s*", "", line)
    line = re.sub(r"^(?:ERROR|WARNING|INFO) \d\d-\d\d [\d:]+ \[[^]]*\]\s*", "", line)
    return line[:300]


def _check_port(host: str, port: int) -> None:
    """Say that a port is taken before a model is loaded for nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port "
                "or --host, or stop what uses it"
            ) from None
