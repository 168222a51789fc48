"""The processes that train one model together: one alone, or as many as ``torchrun`` started.

``torchrun`` and ``accelerate launch`` tell each process its place in the environment (``RANK``,
``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``). Without them there is one.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import TrainingError

__all__ = ["Processes", "joined"]


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among ``size``; ``rank`` 0 is the one that writes files."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the log, the checkpoints and the model."""
        return self.rank == 0

    def total(self, share: Tensor) -> Tensor:
        """The sum of every process's ``share`` (a scalar, overwritten), the same in all of them."""
        if self.size > 1:
            dist.all_reduce(share)
        return share

    def told(self, text: str) -> str:
        """The first process's ``text``, in every process."""
        if self.size == 1:
            return text
        said = [text]
        dist.broadcast_object_list(said, src=0, device=self.device)
        return said[0]


@contextmanager
def joined(device: str, environment: Mapping[str, str] | None = None) -> Iterator[Processes]:
    """Join the other processes for as long as the context lasts.

    ``device`` is ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``. Raises
    :class:`TrainingError` for CUDA that is not there, more processes than GPUs, and an
    environment that names other processes but not how to reach them.
    """
    given = os.environ if environment is None else environment
    size = int(given.get("WORLD_SIZE", "1"))
    if size > 1:
        needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in needed if name not in given]:
            raise TrainingError(
                f"WORLD_SIZE is {size} but {missing[0]} is not set: start the processes with "
                "torchrun --nproc-per-node N -m secateur pretrain train …, or unset WORLD_SIZE"
            )
    place = _place(device, int(given.get("LOCAL_RANK", "0")) if size > 1 else 0)
    if size == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
        dist.init_process_group("nccl", device_id=place)
    else:
        dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()


def _place(device: str, local: int) -> torch.device:
    """The device of the process with number ``local`` on its machine."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and there == 0):
        return torch.device("cpu")
    if there == 0:
        raise TrainingError("device is cuda, but torch sees no CUDA here; use device: cpu or auto")
    if local >= there:
        raise TrainingError(
            f"process {local + 1} on a machine with {there} GPUs: start at most --nproc-per-node "
            f"{there} here, and more machines with --nnodes"
        )
    return torch.device("cuda", local)
