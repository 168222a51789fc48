"""The ready queue: work starts when its own parents are there and the budgets allow it."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ...agents.plans.composition import Plan
from ...agents.plans.machines import Growth, Work
from ...agents.plans.operations import Choose, KeepBest, KeepValid, Select
from ...agents.plans.ranking import ranked
from ...agents.thought import Thought
from .spending import Answer, Spending

__all__ = ["Grown", "Halt", "Journal", "grow"]

_AT_ONCE: Final = 512
"""Most pieces of work that are started in one turn of the event loop: what ends without waiting is
gone before the next begin."""

Perform = Callable[[Work], Awaitable[Sequence[Thought]]]


class Halt(Exception):  # noqa: N818 - a verdict, not an error
    """A rule whose action is ``halt`` was reached: the whole run stops."""

    def __init__(self, thought: Thought) -> None:
        super().__init__(thought.id)
        self.thought = thought


@dataclass(frozen=True, slots=True)
class Grown:
    """What a plan came to."""

    kept: tuple[Thought, ...]
    """The plan's own output, in the graph's order; where a budget ended before there was any, the
    best scored thought that was still in the running."""
    ended: str | None
    """The budget that ran out, in words; None when the plan came to its end."""
    left: int
    """Pieces of work that were possible and not done, for want of a budget."""
    refused: str | None = None
    """Why the first of them was not done: the run's budget, or that of a branch."""


class Journal(Protocol):
    """What the scheduler writes down before it acts on it, and what a resumed run has behind it."""

    @property
    def settled(self) -> Mapping[str, Sequence[str]]:
        """The choices made before, by what they are about."""
        ...

    def knows(self, work: Work) -> bool:
        """Whether what came of this work is recorded."""
        ...

    async def settle(self, about: str, chosen: Sequence[str], why: str) -> None:
        """A choice that depends on timing."""
        ...

    async def drop(self, thoughts: Sequence[Thought], why: str) -> None:
        """Thoughts that came too late."""
        ...


async def grow(
    plan: Plan,
    root: Thought,
    perform: Perform,
    spending: Spending,
    regrow: bool,
    *,
    seed: int = 0,
    journal: Journal | None = None,
) -> Grown:
    """Run a plan from its root thought until nothing more is possible.

    Work is dispatched in the order in which it became possible, as many pieces at a time as the
    budgets allow. Results are told as they come; what grows does not depend on their order, but
    where a ``first`` join or a race says so, or a budget ends: then what spends is refused, and
    what is there goes on to the plan's end. ``perform`` is cancelled with a reason (the task's
    cancel message) when nobody wants its result any more.

    Raises :class:`Halt`; whatever leaves this function, nothing is left running.
    """
    return await _Scheduler(plan, perform, spending, journal, regrow, seed).run(root)


class _Scheduler:
    def __init__(
        self,
        plan: Plan,
        perform: Perform,
        spending: Spending,
        journal: Journal | None,
        regrow: bool,
        seed: int,
    ) -> None:
        self.plan, self.perform, self.spending, self.journal = plan, perform, spending, journal
        self.growth = Growth(regrow, seed, {} if journal is None else journal.settled)
        self.loop = asyncio.get_running_loop()
        self.past: deque[Work] = deque()
        """Work whose outcome is recorded: it goes first, so that a resumed run makes all its old
        choices again before it does anything new."""
        self.queue: deque[Work] = deque()
        self.held: defaultdict[Spending, deque[Work]] = defaultdict(deque)
        """What waits for its own branch's budget; nobody else waits behind it."""
        self.running: dict[asyncio.Future[Sequence[Thought]], Work] = {}
        self.recalling: set[asyncio.Future[Sequence[Thought]]] = set()
        """Those of the running ones that are of the past."""
        self.ended: deque[asyncio.Future[Sequence[Thought]]] = deque()
        self.wake = asyncio.Event()
        self.timers: dict[Spending, asyncio.TimerHandle] = {}
        self.overdue: list[Spending] = []
        self.noted: set[Spending] = set()
        """Spendings whose end is written down."""
        self.scored: dict[str, Thought] = {}
        self.left = 0
        self.refused: str | None = None

    async def run(self, root: Thought) -> Grown:
        kept: list[Thought] = []
        machine = self.plan.start(self.growth, 0)
        machine.out = kept.append
        machine.push(root)
        machine.close()
        why = None
        self._watch(self.spending)
        try:
            self._take_agenda()
            while await self._dispatch() or self.running:
                await self.wake.wait()
                self.wake.clear()
                await self._collect()
        except Halt:
            why = "the run was halted"
            raise
        finally:
            for timer in self.timers.values():
                timer.cancel()
            await self._cancel(list(self.running), why)
        if not kept and self.spending.ended is not None:
            kept = ranked(self.scored.values(), self.plan.lowest)[:1]
        by_path = sorted(kept, key=lambda thought: thought.path)
        return Grown(tuple(by_path), self.spending.ended, self.left, self.refused)

    # Starting work

    def _take_agenda(self) -> None:
        for work in self.growth.ask():
            if work.operation.free:
                self._start(work)
            elif self.journal is not None and self.journal.knows(work):
                self.past.append(work)
            else:
                self.queue.append(work)

    async def _dispatch(self) -> bool:
        """Start what may start, and refuse what never may; whether there is more to collect."""
        most = len(self.running) + _AT_ONCE
        while self.past or (self.queue and not self.recalling):
            if len(self.running) >= most:
                self.loop.call_soon(self.wake.set)
                return True
            queue = self.past or self.queue
            work = queue.popleft()
            chain = self.spending.chain(work)
            if work.stopped is not None:
                self._offer(chain)
                continue
            for spending in chain:
                self._watch(spending)
            # What is recorded was admitted once, and spends nothing a second time.
            asked = [] if queue is self.past else chain
            answers = [(spending, spending.answer(work)) for spending in asked]
            never = next((s for s, answer in answers if answer is Answer.NEVER), None)
            later = next((s for s, answer in answers if answer is Answer.LATER), None)
            if never is not None:
                await self._refuse(work, never)
            elif later is self.spending:
                queue.appendleft(work)
                break
            elif later is not None:
                self.held[later].append(work)
                continue
            else:
                self._start(work, recalled=queue is self.past)
            self._offer(chain)
        return bool(self.ended)

    def _start(self, work: Work, recalled: bool = False) -> None:
        if not work.operation.free:
            for spending in self.spending.chain(work):
                spending.reserve(work)
        task = asyncio.ensure_future(self.perform(work))
        self.running[task] = work
        if recalled:
            self.recalling.add(task)
        task.add_done_callback(self._ended)

    def _offer(self, chain: Sequence[Spending]) -> None:
        """Let the next piece try that waits for one of these budgets."""
        for spending in chain:
            held = self.held.get(spending)
            if held:
                self.queue.appendleft(held.popleft())

    def _ended(self, task: "asyncio.Future[Sequence[Thought]]") -> None:
        self.ended.append(task)
        self.wake.set()

    async def _refuse(self, work: Work, spending: Spending) -> None:
        """Nothing comes of it; what is there goes on without."""
        self.left += 1
        self.refused = self.refused or spending.refused
        if spending.ended is not None:
            await self._note_end(spending)
        elif self.journal is not None:
            await self.journal.settle(f"budget {work.key}", (), spending.refused or "refused")
        self.growth.tell(work, ())
        self._take_agenda()

    async def _note_end(self, spending: Spending) -> None:
        if self.journal is None or spending in self.noted:
            return
        self.noted.add(spending)
        branch = next((b for b, s in self.spending.branches.items() if s is spending), None)
        about = "budget" if branch is None else f"budget {branch.key}"
        await self.journal.settle(about, (), spending.ended or "spent")

    # Time

    def _watch(self, spending: Spending) -> None:
        """Wake up when its time is up."""
        if spending.deadline is None or spending in self.timers:
            return
        now = self.loop.time()
        self.timers[spending] = self.loop.call_at(
            max(spending.deadline, now), self._time_is_up, spending
        )

    def _time_is_up(self, spending: Spending) -> None:
        self.overdue.append(spending)
        self.wake.set()

    async def _stop_overdue(self) -> None:
        for spending in self.overdue:
            late = [t for t, w in self.running.items() if spending in self.spending.chain(w)]
            if not late and not self.queue and not any(self.held.values()):
                continue
            spending.overdue()
            await self._note_end(spending)
            for task in late:
                if not self.running[task].operation.free and not task.done():
                    self.left += 1
                    self.refused = self.refused or spending.ended
                    task.cancel(spending.ended)
        self.overdue.clear()

    # Taking results

    async def _collect(self) -> None:
        if self.overdue:
            await self._stop_overdue()
        while self.ended:
            task = self.ended.popleft()
            work = self.running.pop(task)
            self.recalling.discard(task)
            self._release(work)
            thoughts: Sequence[Thought] = ()
            if not task.cancelled():
                thoughts = task.result()
            stopped = work.stopped
            if stopped is not None:
                await self._drop(work, thoughts, stopped)
                continue
            self._count(work, thoughts)
            self.growth.tell(work, thoughts)
            self._take_agenda()
            if self.growth.take_stopped():
                self._cancel_stopped()

    def _release(self, work: Work) -> None:
        if work.operation.free:
            return
        chain = self.spending.chain(work)
        for spending in chain:
            spending.release(work)
        self._offer(chain)

    def _count(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """The run's own spending counts each thought as it is recorded; branches count here."""
        if work.branch is not None:
            for spending in self.spending.chain(work)[1:]:
                spending.spend_all(work, thoughts)
        self.scored.update((t.id, t) for t in thoughts if t.score is not None and t.lives)
        operation = work.operation
        if isinstance(operation, KeepBest | KeepValid | Select):
            left = {thought.id for thought in thoughts}
            for parent in work.parents:
                if parent.id not in left:
                    self.scored.pop(parent.id, None)
        elif isinstance(operation, Choose):
            for thought in operation.dropped():
                self.scored.pop(thought.id, None)

    async def _drop(self, work: Work, thoughts: Sequence[Thought], why: str) -> None:
        old = {parent.id for parent in work.parents}
        late = [t for t in thoughts if t.lives and t.id not in old]
        if late and self.journal is not None:
            await self.journal.drop(late, why)

    def _cancel_stopped(self) -> None:
        for task, work in self.running.items():
            stopped = work.stopped
            if stopped is not None:
                task.cancel(stopped)

    async def _cancel(
        self, tasks: "Sequence[asyncio.Future[Sequence[Thought]]]", why: str | None
    ) -> None:
        for task in tasks:
            task.cancel(why)
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
