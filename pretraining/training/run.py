"""A run under way: steps, checkpoints and the log, in one process or in many."""

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from ...runtime.screen import Console
from ..errors import TrainingError
from .batches import Batch
from .bpe import Encoder
from .optimizers import factor, optimizers, set_rate
from .pools import stream
from .processes import Processes
from .recipe import Place, TrainConfig

__all__ = ["Run"]


class Run:
    """A model with its optimisers and the place in the run that it has reached."""

    def __init__(
        self, config: TrainConfig, processes: Processes, encoder: Encoder, model: Any
    ) -> None:
        self._config = config
        self._processes = processes
        self._encoder = encoder
        self._model = model
        self._optimizers = optimizers(
            config.optimizer, model, config.learning_rate, config.weight_decay
        )
        self.place = Place()

    def load(self, checkpoint: Path) -> None:
        """Go to where ``checkpoint`` stands."""
        saved = torch.load(checkpoint, map_location=self._processes.device, weights_only=True)
        try:
            self._model.load_state_dict(saved["model"])
            for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{checkpoint}: another model or optimiser ({str(error).splitlines()[0]}); resume "
                "with the configuration that it was trained with"
            ) from None
        self.place = Place(**saved["place"])

    def learn(self, folder: Path) -> None:
        """Train from here to the last step; the first process writes log and checkpoints."""
        config, first = self._config, self._processes.first
        forward = self._forward()
        # Nothing is dropped out: a resumed run has to equal one that was never interrupted.
        self._model.eval()
        began, before = time.perf_counter(), self.place.seconds
        log_path = folder / "log.jsonl"
        if first:
            _shorten(log_path, self.place.step)
        with (
            (log_path if first else Path(os.devnull)).open("a", buffering=1) as log,
            Progress(
                TextColumn("{task.description}", markup=False), BarColumn(),
                TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]:.4f}"),
                TimeRemainingColumn(),
                refresh_per_second=1, disable=not first, console=Console(stderr=True),
            ) as progress,
        ):  # fmt: skip
            bar = progress.add_task(
                f"training {config.name}",
                total=config.steps,
                completed=self.place.step,
                loss=float("nan"),
            )
            ahead = stream(config, self._encoder, self.place)
            while self.place.step < config.steps:
                batch, following = next(ahead)
                rate = factor(self.place.step, config.steps, config.warmup, config.decay)
                set_rate(self._optimizers, config.learning_rate * rate)
                loss, norm = self._step(forward, batch)
                self.place = Place(
                    self.place.step + 1,
                    following.pool,
                    following.batch,
                    self.place.tokens + batch.tokens,
                    before + time.perf_counter() - began,
                )
                progress.update(bar, completed=self.place.step, loss=loss)
                seen = {"loss": round(loss, 5), "norm": round(norm, 5), "rate": rate}
                log.write(json.dumps({**asdict(self.place), **seen}) + "\n")
                due = self.place.step % config.checkpoint_every == 0
                if first and (due or self.place.step == config.steps):
                    self._keep(folder / "checkpoint.pt")

    def _forward(self) -> Any:
        """What a step calls: the model, compiled and shared between processes as asked."""
        forward = self._model
        if self._config.compile:
            forward = torch.compile(forward, dynamic=True)
        if self._processes.size == 1:
            return forward
        # Outside of the compiled model: inside, it would be compiled anew for each way of passing,
        # and in pieces, one for each bucket of gradients.
        return DistributedDataParallel(forward, gradient_as_bucket_view=True)

    def _step(self, forward: Any, batch: Batch) -> tuple[float, float]:
        """Learn one global batch; the mean loss of all its learnt tokens, the gradient's norm."""
        processes, device = self._processes, self._processes.device
        share = batch.share(processes.rank, processes.size)
        passes = list(share.passes(self._config.tokens_per_pass))
        total = torch.zeros((), device=device)
        for number, part in enumerate(passes):
            alone = processes.size > 1 and number + 1 < len(passes)
            # The processes' gradients are added up once, in the last pass.
            with forward.no_sync() if alone else nullcontext():
                loss = self._loss(forward, part) / batch.learnt
                # Sharing takes the mean over processes, where the tokens' mean needs the sum.
                (loss * processes.size).backward()
            total += loss.detach()
        norm = clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        mean, length = torch.stack([processes.total(total), norm]).tolist()
        if not math.isfinite(mean + length):
            raise TrainingError(
                f"step {self.place.step + 1}: the loss is {mean} and its gradient {length}; resume "
                "from the last checkpoint with a lower learning_rate"
            )
        return mean, length

    def _loss(self, forward: Any, part: Batch) -> Tensor:
        """The summed loss of one pass."""
        device, width = self._processes.device, part.ids.shape[1]
        # Chosen before they reach the device, which then need not be waited for.
        row, place = (part.labels[:, 1:] >= 0).nonzero(as_tuple=True)
        targets = part.labels[row, place + 1].to(device)
        predicting = (row * width + place).to(device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"
        ):
            logits = forward(input_ids=part.ids.to(device), use_cache=False).logits
        chosen = logits.flatten(0, 1).index_select(0, predicting)
        return cross_entropy(chosen.float(), targets, reduction="sum")

    def _keep(self, checkpoint: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        partial = checkpoint.with_suffix(".partial")
        content = {
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "place": asdict(self.place),
        }
        torch.save(content, partial)
        partial.replace(checkpoint)


def _shorten(log: Path, steps: int) -> None:
    """Keep the log of the first ``steps`` steps; what came after is trained again."""
    kept = log.read_text().splitlines(keepends=True)[:steps] if steps and log.exists() else []
    log.write_text("".join(kept))
