"""The one thread that uses the model: it gathers what waits, and works in steps.

Each turn: rows that are finished or cancelled leave, waiting texts are read in one pass, waiting
prompts are read in one pass and join, and every row gets a token.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..checkpoint import Checkpoint
from ..protocol import EngineError
from .annotation import read_along
from .batching import Batch, Row

__all__ = ["Generation", "Mailbox", "ReadAlong", "Worker"]

_PATIENCE = 1.0
"""Seconds a step waits for an event loop that hasn't taken the tokens of the step before."""
_PASS_TOKENS = 16_384
_PASS_LOGITS = 2**25
"""Most tokens and most logits of one pass over given texts: what bounds its memory."""
_SMALL = 20_000_000
"""Parameters below which a CPU model runs on one core. Its matrices are too small to share: a
second core gains little when it is free, and costs up to 30 times when other work holds it,
because every one of some hundred kernels a step waits for both."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where a job's results go: ``put`` is called on the event loop of whoever asked."""

    loop: asyncio.AbstractEventLoop
    put: Callable[[Any], None]


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """A row to generate; its mailbox gets ``Token`` values, or one :class:`EngineError`."""

    row: Row
    mailbox: Mailbox


@dataclass(frozen=True, slots=True, eq=False)
class ReadAlong:
    """A text to read along; its mailbox gets the array of ``read_along``, or an error."""

    ids: tuple[int, ...]
    start: int
    """First position that is asked for, from 1 to ``len(ids) - 1``."""
    mailbox: Mailbox


_Job = TypeVar("_Job", Generation, ReadAlong)


class Worker:
    """Runs jobs on a thread of its own until it is closed, or the thread dies."""

    def __init__(self, checkpoint: Checkpoint, max_batch: int) -> None:
        self.tokens_generated = 0
        self._checkpoint = checkpoint
        self._max_batch = max_batch
        self._batch = Batch(checkpoint)
        self._mailboxes: dict[Row, Mailbox] = {}
        self._generations: deque[Generation] = deque()
        self._readings: deque[ReadAlong] = deque()
        self._outbox: dict[asyncio.AbstractEventLoop, list[tuple[Callable[[Any], None], Any]]] = {}
        self._taken: list[threading.Event] = []
        self._inbox: list[Generation | ReadAlong] = []
        self._changed = threading.Condition()
        self._closing = False
        self._ended: EngineError | None = None
        self._thread = threading.Thread(target=self._run, name="secateur-local", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Generation | ReadAlong]) -> None:
        """Hand over jobs. Raises :class:`EngineError` when the thread has ended."""
        with self._changed:
            if self._ended is not None:
                raise _again(self._ended)
            self._inbox += jobs
            self._changed.notify()

    def close(self) -> None:
        """Ask the thread to end; jobs that are under way fail."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def end(self) -> None:
        """Close and wait, from wherever the last reference was dropped.

        A thread that is still in torch while the interpreter shuts down would abort the process.
        """
        self.close()
        if threading.current_thread() is not self._thread:
            self.join()

    def _run(self) -> None:
        end = EngineError("the local engine is closed; load it again")
        try:
            parameters = list(self._checkpoint.model.parameters())
            if parameters[0].device.type == "cpu" and sum(p.numel() for p in parameters) < _SMALL:
                torch.set_num_threads(1)
            with torch.inference_mode():
                while self._gather():
                    self._turn()
        except BaseException as error:  # whatever ends the thread, nobody may be left waiting
            end = EngineError(
                f"the local engine's worker died ({_brief(error)}); load the engine again"
            )
            end.__cause__ = error
        with self._changed:
            self._ended = end
        jobs = [*self._inbox, *self._generations, *self._readings]
        for mailbox in [*(job.mailbox for job in jobs), *self._mailboxes.values()]:
            self._post(mailbox, _again(end))
        self._flush()

    def _gather(self) -> bool:
        """Take new jobs, waiting while there is nothing to do; False when it is time to end."""
        with self._changed:
            while not (self._closing or self._inbox or self._busy):
                self._changed.wait()
            if self._closing:
                return False
            inbox, self._inbox = self._inbox, []
        for job in inbox:
            if isinstance(job, Generation):
                self._generations.append(job)
            else:
                self._readings.append(job)
        return True

    @property
    def _busy(self) -> bool:
        return bool(self._batch.rows or self._generations or self._readings)

    def _turn(self) -> None:
        self._leave()
        self._read()
        self._admit()
        self._step()
        self._flush()

    def _leave(self) -> None:
        rows = self._batch.rows
        kept = [i for i, row in enumerate(rows) if not (row.finished or row.cancelled)]
        for row in rows:
            if row.finished or row.cancelled:
                del self._mailboxes[row]
        self._batch.keep(kept)

    def _read(self) -> None:
        """One pass over as many waiting texts as fit, so that running rows never wait for long."""
        most = min(_PASS_TOKENS, _PASS_LOGITS // self._checkpoint.width)
        jobs: list[ReadAlong] = []
        longest = 0
        while self._readings:
            longest = max(longest, len(self._readings[0].ids))
            if jobs and (len(jobs) + 1) * longest > most:
                break
            jobs.append(self._readings.popleft())
        if jobs:
            self._isolated(jobs, self._read_together)

    def _read_together(self, jobs: Sequence[ReadAlong]) -> None:
        numbers = read_along(self._checkpoint, [(job.ids, job.start) for job in jobs])
        for job, own in zip(jobs, numbers, strict=True):
            self._post(job.mailbox, own)

    def _admit(self) -> None:
        jobs: list[Generation] = []
        while self._generations and len(self._batch.rows) + len(jobs) < self._max_batch:
            job = self._generations.popleft()
            if not job.row.cancelled:
                jobs.append(job)
        if jobs:
            self._isolated(jobs, self._admit_together)

    def _admit_together(self, jobs: Sequence[Generation]) -> None:
        rows = [job.row for job in jobs]
        prompts = self._batch.read(rows)
        self._mailboxes |= {job.row: job.mailbox for job in jobs}
        self._generate(lambda: (rows, self._batch.admit(prompts)))

    def _step(self) -> None:
        self._leave()
        if self._batch.rows:
            self._generate(lambda: (self._batch.rows, self._batch.step()))

    def _generate(self, draw: Callable[[], tuple[Sequence[Row], Sequence[Any]]]) -> None:
        """Post the tokens of a draw; when it raises, every row of the batch fails with it."""
        try:
            rows, tokens = draw()
        except Exception as error:
            for mailbox in self._mailboxes.values():
                self._post(mailbox, _failure(error))
            self._mailboxes.clear()
            self._batch = Batch(self._checkpoint)
            return
        self.tokens_generated += len(tokens)
        for row, token in zip(rows, tokens, strict=True):
            self._post(self._mailboxes[row], token)

    def _isolated(self, jobs: Sequence[_Job], work: Callable[[Sequence[_Job]], None]) -> None:
        """Work on jobs together; if that raises, on each alone, so that only the culprit fails."""
        try:
            work(jobs)
        except Exception as error:
            if len(jobs) == 1:
                self._post(jobs[0].mailbox, _failure(error))
                return
            for job in jobs:
                self._isolated([job], work)

    def _post(self, mailbox: Mailbox, item: Any) -> None:
        self._outbox.setdefault(mailbox.loop, []).append((mailbox.put, item))

    def _flush(self) -> None:
        """Hand the turn's results to their event loops, one call each.

        Waits until those of the turn before were taken, so that no row runs far ahead of a
        reader who may cancel it.
        """
        for taken in self._taken:
            taken.wait(_PATIENCE)
        self._taken = []
        outbox, self._outbox = self._outbox, {}
        for loop, items in outbox.items():
            taken = threading.Event()
            try:
                loop.call_soon_threadsafe(_hand_over, items, taken)
            except RuntimeError:  # that loop is closed: nobody reads these rows any more
                for row, mailbox in self._mailboxes.items():
                    row.cancelled |= mailbox.loop is loop
                continue
            self._taken.append(taken)


def _hand_over(items: list[tuple[Callable[[Any], None], Any]], taken: threading.Event) -> None:
    for put, item in items:
        put(item)
    taken.set()


def _brief(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _again(error: EngineError) -> EngineError:
    """A copy for one more waiter: an exception that is raised twice mixes its tracebacks."""
    copy = EngineError(str(error))
    copy.__cause__ = error.__cause__
    return copy


def _failure(error: Exception) -> EngineError:
    failure = EngineError(
        f"the model failed on this request ({_brief(error)}); try a smaller max_batch, or another "
        "device"
    )
    failure.__cause__ = error
    return failure
