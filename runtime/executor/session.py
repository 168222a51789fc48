"""One agent on one task: from the first event of the run to its last, and on from there."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.contextvars import bound_contextvars

from ...agents.errors import named, reason
from ...agents.functions import FunctionError, called
from ...agents.spec import AgentSpec, ReadTask, TaskError
from ...agents.thought import Status, Thought, thought_id
from ...agents.tool import Workspace
from ...gates.canonical import recordable, recordable_text
from ...gates.errors import SecateurError
from ...gates.policy import Policy
from ...gates.unicode import joined
from ..engines.protocol import Engine, EngineInfo
from ..generation.attempts import Attempts
from ..ledger.events import RunStart, RunStatus
from ..ledger.ledger import Ledger, new_run_id
from ..ledger.writing.runlog import RunLog
from ..logs import get_logger
from ..recovery.fingerprint import fingerprint
from ..recovery.history import History, has_run
from ..recovery.recall import Recall, RecallingLog
from ..recovery.resuming import as_it_began, check_resumable, lay_out_again, read_run
from ..redaction import redacted
from ..settings import Settings
from .performer import Performer
from .recording import Recording
from .scheduler import Halt, grow
from .spending import Spending
from .tools import Acting

__all__ = ["RunResult", "Session"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    run_id: str
    agent: str
    task: str
    policy: str
    context: str | None
    status: RunStatus
    answer: str | None
    """The result in words; None where nothing survived."""
    best: Thought | None
    """The first of the plan's own output, in the graph's order."""
    kept: tuple[Thought, ...]
    """The plan's own output."""
    thoughts: tuple[Thought, ...]
    """Every thought of the run, in the order in which they were made."""
    seconds: float
    """Of this process; what a resumed run took before is not counted."""
    workspace: Path
    reason: str | None = None
    """Why the run did not end with ``done``, in one line."""
    truths: Mapping[str, bool | float | str] = field(default_factory=dict)
    """What ``ground_truth`` says of thoughts, by id; in words where it could not be told."""

    @property
    def pruned(self) -> tuple[Thought, ...]:
        """The thoughts that the gate cut."""
        return tuple(t for t in self.thoughts if t.status is Status.PRUNED)

    @property
    def dropped(self) -> tuple[Thought, ...]:
        """The thoughts that lost to others, or to a budget; each says why."""
        return tuple(t for t in self.thoughts if t.status is Status.DROPPED)

    @property
    def waiting(self) -> tuple[Thought, ...]:
        """The thoughts on which a person has to decide."""
        return tuple(t for t in self.thoughts if t.status is Status.ESCALATED)

    @property
    def tokens(self) -> int:
        """Generated tokens, pruned branches included."""
        return sum(thought.tokens for thought in self.thoughts)

    @property
    def spent_after(self) -> int:
        """Tokens that the engine generated beyond those, after a cut or a switch."""
        return sum(thought.spent_after for thought in self.thoughts)


@dataclass(slots=True)
class Session:
    """The live objects of one run, from its start, or from where the ledger left it, to its end."""

    agent: AgentSpec
    engine: Engine
    ledger: Ledger
    chosen: Policy | str | Path | None = None
    """The policy, as it was given. None: the run's own where it is resumed, else the agent's."""
    seed: int = 0
    sandbox: Path | None = None
    observe: Callable[[Thought], None] = lambda thought: None
    started: Callable[[str], None] = lambda run: None
    """Told the run's id once the ledger has it."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the agent and the model came from, as the command line names them."""
    task: str | None = None
    policy: Policy | None = None
    run: str = field(default_factory=new_run_id)
    status: RunStatus = RunStatus.DONE
    reason: str | None = None
    context: str | None = None
    kept: tuple[Thought, ...] = ()
    answer: str | None = None
    began: float = field(default_factory=time.monotonic)
    _value: Any = None
    _history: History = field(default_factory=History)
    _started_with: EngineInfo | None = None
    _performer: Performer | None = None

    async def perform(self, task: str | None) -> None:
        """Run to the end, or to where a person has to decide: a new run where there is a task, else
        the one that the ledger has.

        Raises :class:`SecateurError` for what a user can mend; the ledger then says ``failed``, or
        ``cancelled`` where the run was interrupted.
        """
        with bound_contextvars(run=self.run, agent=self.agent.name):
            try:
                if task is None:
                    await self._reopen()
                else:
                    await self._start(task)
                await self._grow()
                self._deliver()
                await self._finish()
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
                    self.status, self.reason = RunStatus.CANCELLED, "interrupted"
                else:
                    self.status = RunStatus.FAILED
                    self.reason = redacted(reason(error))
                await self._finish_if_possible()
                raise
            _log.info("run ended", status=self.status.value)

    @property
    def folder(self) -> Path:
        """Where the run's tools act."""
        return self.sandbox or Path("sandbox") / self.run

    @property
    def waiting(self) -> list[str]:
        """Thoughts on which a person has to decide."""
        return [t.id for t in self.thoughts if t.status is Status.ESCALATED]

    @property
    def thoughts(self) -> tuple[Thought, ...]:
        """All that were made, in order."""
        if self._performer is None:
            return ()
        return tuple(self._performer.recording.thoughts.values())

    @property
    def _info(self) -> EngineInfo:
        """What the run's events are bound to: the model as the run began with it."""
        return self._started_with or self.engine.info

    @property
    def _live(self) -> Performer:
        if self._performer is None:
            raise RuntimeError("the run is not open yet")
        return self._performer

    def result(self) -> RunResult:
        """What came of it."""
        assert self.policy is not None
        assert self.task is not None
        return RunResult(
            run_id=self.run,
            agent=self.agent.name,
            task=self.task,
            policy=self.policy.name,
            context=self.context,
            status=self.status,
            answer=self.answer,
            best=self.kept[0] if self.kept else None,
            kept=self.kept,
            thoughts=self.thoughts,
            seconds=time.monotonic() - self.began,
            workspace=self.folder,
            reason=self.reason,
            truths={} if self._performer is None else self._live.recording.truths,
        )

    # Beginning, or beginning again

    async def _start(self, task: str) -> None:
        """Read the task, tell the ledger what is about to run, and lay out the folder."""
        self.task = task
        self._read_task()
        self.policy = self._choose(self.chosen or Settings().policy or self.agent.policy)
        self._make_folder()
        fresh = not self.folder.is_dir() or not any(self.folder.iterdir())
        _log.info("run started", seed=self.seed)
        log = await self.ledger.start(self._describe(fresh))
        self._tell()
        self._open(log)
        self._prepare()
        await self._place_root()

    async def _reopen(self) -> None:
        """Go on from the ledger. Raises :class:`ResumeError` where that cannot be."""
        log = await self.ledger.reopen(self.run)
        history = self._history = await read_run(self.ledger, self.run)
        chosen = None if self.chosen is None else self._choose(self.chosen)
        check_resumable(history, self.agent, self.task, chosen)
        self._started_with = as_it_began(history, self.engine.info)
        self.task, self.policy = history.task, history.policy
        self.seed = history.started["seed"]
        options = history.started["options"]
        self.sandbox = self.sandbox or Path(options["sandbox"])
        self._read_task()
        if self.context != history.started["context"]:
            raise TaskError(
                f"agent {self.agent.name!r} reads the task of run {self.run} otherwise than it did "
                f"({self.context}, not {history.started['context']}): resume it with that agent"
            )
        self._make_folder()
        start = self._describe(options["fresh"])
        killed = history.ended is None
        why = "its process was killed" if killed else f"it had ended as {history.ended}"
        await log.resumed(start, why)
        self._tell()
        _log.info("run resumed", events=history.events, thoughts=len(history.thoughts))
        for thought, attempt in history.intended.items():
            history.abandoned.add(thought)
            await log.abandon(thought, attempt, why)
        self._open(log)
        if not any(thought.kind == "task" for thought in history.thoughts.values()):
            if options["fresh"] and self.agent.prepare is not None:
                lay_out_again(self.folder)
            self._prepare()
        await self._place_root()

    def _tell(self) -> None:
        """Whoever waits for the run's id is told of it, and can fail no run."""
        try:
            called(self.started, self.run)
        except Exception as error:
            _log.warning("started= raised", reason=reason(error))

    def _choose(self, policy: Policy | str | Path) -> Policy:
        vocabulary = self.engine.info.vocabulary.vocabulary
        if not isinstance(policy, Policy):
            policy = Policy.load(policy, vocabulary)
        policy.check(vocabulary)
        return policy

    async def recorded(self) -> History | None:
        """What the ledger holds of the run, if it holds it."""
        if not await self.ledger.ask(lambda connection: has_run(connection, self.run)):
            return None
        return await read_run(self.ledger, self.run)

    def _describe(self, fresh: bool) -> RunStart:
        assert self.policy is not None
        assert self.task is not None
        options = {
            "budget": _plain(self.agent.budget, _BUDGET),
            "sampling": _plain(self.agent.sampling, ("temperature", "top_p")),
            "plan": fingerprint(self.agent),
            "sandbox": str(self.folder.absolute()),
            "fresh": fresh,
            "origin": {
                name: redacted(it) if isinstance(it, str) else it
                for name, it in self.origin.items()
            },
        }
        return RunStart(
            run=self.run,
            agent=self.agent.name,
            task=self.task,
            context=self.context,
            seed=self.seed,
            policy=self.policy,
            engine=self._info,
            options=options,
        )

    def _open(self, log: RunLog) -> None:
        assert self.policy is not None
        assert self.task is not None
        history = self._history
        spending = Spending(
            self.agent.budget, self.agent.sampling, time.monotonic() - history.seconds
        )
        recording = Recording(
            log=RecallingLog(log, history) if history.events else log,
            spending=spending,
            task=self.task,
            observe=self.observe,
            thoughts={},
            recall=Recall(history),
        )
        attempts = Attempts(
            agent=self.agent,
            policy=self.policy,
            engine=self.engine,
            model=self._info.model_digest,
            context=self.context,
            seed=self.seed,
            recording=recording,
        )
        acting = Acting(recording, Workspace(self.folder.absolute()))
        self._performer = Performer(attempts, recording, acting)

    def _read_task(self) -> None:
        """Let the agent read the user's text. Raises :class:`TaskError`."""
        self._value, self.context = read_task(self.agent, self.task or "")

    def _make_folder(self) -> None:
        if not self.agent.acts:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # a NUL in its name
            said = error.strerror if isinstance(error, OSError) else error
            raise TaskError(f"{self.folder}: {said}; give --sandbox a folder to act in") from None

    def _prepare(self) -> None:
        if self.agent.prepare is not None:
            with blaming(self.agent, "prepare="):
                folder = Workspace(self.folder.absolute())
                called(self.agent.prepare, folder, self.task or "", self.seed)

    async def _place_root(self) -> None:
        model = self._history.started.get("model", self.engine.info.model)
        id = thought_id("task", (), prompt=[self.task, self.seed], model=model)
        root = Thought(
            id=id, operation="task", kind="task", text=self.task or "", value=self._value
        )
        await self._live.recording.place(root, 0)

    # Growing, and the end

    async def _grow(self) -> None:
        """Grow the graph of thoughts with the ready-queue scheduler."""
        assert self.policy is not None
        recording = self._live.recording
        root, *_ = recording.thoughts.values()
        try:
            grown = await grow(
                self.agent.plan,
                root,
                self._live.perform,
                recording.spending,
                regrow=self.policy.regrow == "ban",
                seed=self.seed,
                journal=recording,
            )
            self.kept = grown.kept
            ended = grown.ended or (None if grown.kept else grown.refused)
            if ended is not None:
                self.status = RunStatus.EXHAUSTED
                self.reason = f"{ended}; {grown.left} steps were left undone"
                await recording.log.note("budget", {"ended": ended, "left": grown.left})
        except Halt as halt:
            self.status = RunStatus.HALTED
            self.reason = f"thought {halt.thought.id} reached a rule whose action is halt"
        if self.status is RunStatus.DONE and not self.kept:
            self.status = RunStatus.ESCALATED if self.waiting else RunStatus.EMPTY
            self.reason = _why_empty(self.thoughts, self.waiting)

    def _deliver(self) -> None:
        """Put the result in words."""
        if not self.kept:
            return
        best = self.kept[0]
        answer = best.text
        if self.agent.answer is not None:
            with blaming(self.agent, "answer="):
                answer = called(self.agent.answer, self._live.recording.scene((best,)))
        if not isinstance(answer, str):
            given = type(answer).__name__
            raise TaskError(f"agent {self.agent.name!r}: answer= gave {given}; return a str")
        with blaming(self.agent, "answer="):
            recordable_text(answer)
        self.answer = answer

    async def _finish(self) -> None:
        """Write the run's last event."""
        if self._performer is not None:
            result = self.reason if self.answer is None else self.answer
            await self._performer.recording.log.finish(self.status, result)

    async def _finish_if_possible(self) -> None:
        """The error that ended the run is what the caller must see, even if the ledger is gone."""
        try:
            await self._finish()
        except Exception as error:
            _log.error("the ledger could not record the end of the run", reason=str(error))


def read_task(agent: AgentSpec, task: str) -> tuple[Any, str | None]:
    """Value and policy context that an agent reads in a user's text. Raises :class:`TaskError`."""
    if not isinstance(task, str):
        raise TaskError(f"the task is a {type(task).__name__}: give {agent.name!r} a text")
    if not task.strip():
        raise TaskError(f"the task is empty: say what {agent.name!r} shall do")
    try:
        recordable_text(task)
        with blaming(agent, "read=", but=ValueError):
            reading = called(agent.read, task)
            if not isinstance(reading, ReadTask):
                given = type(reading).__name__
                raise TaskError(f"agent {agent.name!r}: read= gave {given}; return a ReadTask")
            recordable(reading.value)
    except ValueError as error:
        raise TaskError(reason(error)) from None
    # As the ledger gives it back.
    return reading.value, None if reading.context is None else joined(reading.context)


@contextmanager
def blaming(
    agent: AgentSpec, function: str, but: type[Exception] = SecateurError
) -> Iterator[None]:
    """Say in one line which of the agent's own functions raised; ``but`` passes as it is."""
    try:
        yield
    except FunctionError as error:
        raise TaskError(f"agent {agent.name!r}: {function} raised {error}") from error
    except (SecateurError, but):
        raise
    except Exception as error:
        raise TaskError(f"agent {agent.name!r}: {function} raised {named(error)}") from error


def _why_empty(thoughts: tuple[Thought, ...], waiting: list[str]) -> str:
    if waiting:
        return f"a person has to decide on thought {waiting[0]}"
    failed = [t for t in thoughts if t.status is Status.FAILED]
    pruned = sum(t.status is Status.PRUNED for t in thoughts)
    if failed and not pruned:
        return f"every branch failed: {failed[0].reason}"
    if failed:
        return f"no branch survived: {pruned} pruned, {len(failed)} failed ({failed[0].reason})"
    return f"no branch survived: {pruned} pruned" if pruned else "the plan gave no thought"


_BUDGET = ("tokens", "thoughts", "seconds", "in_flight", "depth", "breadth")


def _plain(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(values, name) for name in names}
