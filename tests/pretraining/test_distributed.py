"""Several processes train as one does: real processes, joined by gloo over the loopback."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from secateur.pretraining.errors import TrainingError
from secateur.pretraining.training.processes import joined
from secateur.pretraining.training.recipe import TrainConfig
from secateur.pretraining.training.train import train

TINY = {
    "name": "tiny",
    "seed": 1,
    "architecture": {
        "vocabulary": 400, "layers": 2, "width": 32, "heads": 2, "feed_forward": 64,
        "context": 160,
    },
    "corpus": {"seed": 1, "growing": 500},
    "steps": 10,
    "warmup": 3,
    "decay": 2,
    "tokens_per_batch": 640,
    "pool": 64,
    "learning_rate": 1e-2,
    "optimizer": "muon",
    "precision": "float32",
    "compile": False,
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 5,
}  # fmt: skip


LAUNCH = """
import json, os, sys

import secateur.pretraining.training.train  # once for all that follow: it takes seconds
from secateur.cli import main

for number, (port, words) in enumerate(json.loads(sys.argv[2])):
    ranks = []
    for rank in range(2):
        if (pid := os.fork()) == 0:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
            }
            os.dup2(os.open(f"{sys.argv[1]}/{number}-{rank}", os.O_WRONLY | os.O_CREAT), 2)
            sys.argv = ["secateur", "pretrain", "train", *words]
            try:
                main()
            except SystemExit as left:
                sys.stderr.flush()
                os._exit(left.code or 0)
            os._exit(70)
        ranks.append(pid)
    print(*[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks])
"""
"""Runs the command in two processes, with the environment that ``torchrun`` gives, several times
one after the other; writes what each says on standard error to a file, and prints exit codes."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Shared:
    """What came of the runs in two processes: exit codes and standard errors, by run and rank."""

    folder: Path
    codes: list[list[int]]
    said: list[list[str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """AdamW; Muon in several passes, stopped after five steps; its rest; a batch too small."""
    folder = tmp_path_factory.mktemp("shared")
    passes = {**TINY, "tokens_per_pass": 160}
    recipes = {
        "adamw": {**TINY, "optimizer": "adamw"},
        "half": {**passes, "steps": 5, "decay": 0},
        "muon": passes,
        "small": {**TINY, "tokens_per_batch": 300},
    }
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    runs = [("adamw", "adamw"), ("half", "muon"), ("muon", "muon", "--resume"), ("small", "small")]
    work = [
        (free_port(), ["--config", f"{folder}/{recipe}.yaml", "--out", f"{folder}/{out}", *more])
        for recipe, out, *more in runs
    ]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(folder), json.dumps(work)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=540,
        check=True,
    )
    said = [[(folder / f"{run}-{rank}").read_text() for rank in range(2)] for run in range(4)]
    codes = [[int(code) for code in line.split()] for line in done.stdout.splitlines()]
    return Shared(folder, codes, said)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 2e-4), ("muon", 5e-3)])
def test_two_processes_give_the_loss_curve_of_one(
    shared: Shared, tmp_path: Path, optimizer: str, tolerance: float
) -> None:
    """Float32, ten steps, whatever each process's share teaches.

    The gradient of the first step is the same to 1e-5; what follows differs by rounding, which
    Muon magnifies, as it orthogonalises in bfloat16.
    """
    assert shared.codes[:3] == [[0, 0]] * 3, shared.said
    train(TrainConfig.model_validate({**TINY, "optimizer": optimizer}), tmp_path)
    one, two = log(tmp_path), log(shared.folder / optimizer)
    assert [line["step"] for line in two] == list(range(1, 11))
    assert [line["tokens"] for line in two] == [line["tokens"] for line in one]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=2e-5)
    assert two[0]["norm"] == pytest.approx(one[0]["norm"], abs=2e-5)
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=tolerance)
    assert one[-1]["loss"] < one[0]["loss"] - 0.5


def test_one_process_reports_and_exports_and_the_other_is_silent(shared: Shared) -> None:
    assert "model written" in shared.said[0][0]
    assert shared.said[0][1] == ""
    assert (shared.folder / "adamw" / "model" / "model.safetensors").is_file()


def test_a_batch_too_small_for_the_processes_is_refused_by_each(shared: Shared) -> None:
    assert shared.codes[3] == [1, 1]
    for said in shared.said[3]:
        assert "set it to 320 or more" in said
        assert len(said.splitlines()) == 1


def test_processes_that_cannot_meet_are_told_how_to_start() -> None:
    with (
        pytest.raises(TrainingError, match="RANK is not set: start the processes with torchrun"),
        joined("cpu", {"WORLD_SIZE": "2"}),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(TrainingError, match="use device: cpu or auto"), joined("cuda", {}):
        pass


def test_one_process_needs_no_environment() -> None:
    with joined("cpu", {}) as processes:
        assert (processes.rank, processes.size, processes.first) == (0, 1, True)
        assert processes.told("x") == "x"
        assert processes.total(torch.tensor(2.5)).item() == 2.5
    assert not torch.distributed.is_initialized()
