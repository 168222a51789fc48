"""Several processes train as one does: real processes, joined by gloo over the loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from secateur.pretraining.errors import TrainingError
from secateur.pretraining.processes import joined
from secateur.pretraining.train import TrainConfig, train

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


def start(config: Path, out: Path, size: int, *more: str) -> list[subprocess.Popen[str]]:
    """As many processes as ``torchrun --nproc-per-node`` starts, with the environment it gives."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, "-m", "secateur", "pretrain", "train"]
    command += ["--config", str(config), "--out", str(out), *more]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(started: list[subprocess.Popen[str]]) -> list[str]:
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return said


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path) -> None:
    """Float32: the same to 1e-4 of a nat in each of ten steps, whatever the rank's share learns.

    The two stop after five steps and are resumed; and each learns its share in several passes.
    """
    train(TrainConfig.model_validate(TINY), tmp_path / "one")
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump({**TINY, "tokens_per_pass": 160, "steps": 10}))
    half = tmp_path / "half.yaml"
    half.write_text(yaml.safe_dump({**TINY, "tokens_per_pass": 160, "steps": 5, "decay": 0}))
    finish(start(half, tmp_path / "two", 2))
    said = finish(start(config, tmp_path / "two", 2, "--resume"))

    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert [line["step"] for line in two] == list(range(1, 11))
    assert [line["tokens"] for line in two] == [line["tokens"] for line in one]
    for alone, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert shared["norm"] == pytest.approx(alone["norm"], rel=1e-3)
    assert one[-1]["loss"] < one[0]["loss"] - 0.5

    weights = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-3), name
    # One of them reports and exports, the other is silent.
    assert "model written" in said[0]
    assert "training" not in said[1]
    assert "model written" not in said[1]
    assert (tmp_path / "two" / "model" / "model.safetensors").is_file()


def test_a_batch_too_small_for_the_processes_is_refused_by_each(tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({**TINY, "tokens_per_batch": 300}))
    started = start(config, tmp_path / "out", 2)
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1]
    assert all("set it to 320 or more" in text and "Traceback" not in text for text in said)


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
