"""``secateur run``: one agent on one task, or on a file of them."""

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from ..agents.code import code_of
from ..agents.errors import reason
from ..agents.loading import file_of, load_agent
from ..agents.thought import Thought
from ..gates.encoding import decoded, marked
from ..gates.errors import SecateurError
from ..gates.policy import Policy
from ..runtime.agent import Agent
from ..runtime.engines.checkpoint import shipped_models
from ..runtime.engines.opening import open_engine
from ..runtime.engines.protocol import Engine
from ..runtime.executor.session import RunResult
from ..runtime.ledger.events import RunStatus
from ..runtime.ledger.ledger import Ledger
from ..runtime.ledger.reading.audit import AuditLog
from ..runtime.pictures.looks import shortened
from ..runtime.recovery.resuming import ResumeError, RunOverError, resumable
from ..runtime.screen import Console
from ..runtime.settings import Settings
from .interrupts import ending_at_once
from .live import shown_live
from .stopping import run_stoppable
from .terminal import Fact, one_line, print_table, table
from .tree import render_tree

__all__ = ["outcome", "run"]

_AT_ONCE = 8
"""Tasks of a file that run side by side; they share the engine's batches."""


class TasksError(SecateurError):
    """A file of tasks that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Task:
    text: str
    seed: int
    line: int = 0
    """Where it stands in its file."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A task of a file that gave no result, and why."""

    line: int
    task: str | None
    """None where the line holds none."""
    error: str
    run: str | None = None
    """The run that raised; None where none was begun."""

    @property
    def status(self) -> str:
        return "refused" if self.run is None else RunStatus.FAILED.value

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "run": self.run,
            "line": self.line,
            "task": self.task,
            "status": self.status,
            "reason": self.error,
            "error": self.error,
        }


def run(
    agent: Annotated[
        str | None,
        typer.Argument(help="A built-in agent (opsdesk, sort, intersect) or path/to/file.py:name."),
    ] = None,
    task: Annotated[str | None, typer.Argument(help="The task in plain words.")] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(help='A JSONL file of tasks, one {"task": "…", "seed": 1} a line.'),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="A YAML file, or observe, prune or strict.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="local: the model in this process; or a vLLM server's http://HOST:PORT."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A shipped model's name, or a checkpoint folder.")
    ] = None,
    db: Annotated[str | None, typer.Option(help="The ledger: a path or a database URL.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same graph.", show_default="0")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens that the run may generate.")
    ] = None,
    sandbox: Annotated[
        Path | None, typer.Option(help="The folder the tools act in; default sandbox/RUN.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with this run (the start of its id), killed, interrupted or decided on.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """Run an agent on a task: watch its graph of thoughts grow, and see what was cut and why.

    Example: secateur run opsdesk "the boss is angry. restart web and confirm it is up."
    """
    if resume is not None:
        if tasks is not None or seed is not None:
            raise typer.BadParameter("--resume goes on with one run: its task and seed are its own")
        _resume(
            _Resumed(resume, agent, task, policy, engine, model, db, max_tokens, sandbox, json_)
        )
        return
    if agent is None:
        raise typer.BadParameter("name an AGENT, or a run to --resume")
    seed = seed or 0
    if (task is None) == (tasks is None):
        raise typer.BadParameter("give either a TASK or --tasks FILE.jsonl")
    if tasks is not None and sandbox is not None:
        raise typer.BadParameter("--sandbox is for one task; tasks of a file get a folder each")
    code = _code(agent)
    runnable = _load(agent, max_tokens)
    wanted = [_Task(task, seed)] if task is not None else _read_tasks(tasks or Path(), seed)
    settings = Settings()
    origin: dict[str, Any] = {
        "agent": _agent_anywhere(agent),
        "engine": settings.server(engine),
        "model": _model_anywhere(model or settings.model),
    }
    if code is not None:
        origin["code"] = code
    live = _open(origin["engine"], model or settings.model)
    chosen = policy or settings.policy or runnable.policy
    if not isinstance(chosen, Policy):
        chosen = Policy.load(chosen, live.info.vocabulary.vocabulary)
    again = _Again(agent, db)
    run_them = _Runs(runnable, chosen, live, db or settings.db, sandbox, json_, origin, again)
    if tasks is None:
        (only,) = wanted
        assert isinstance(only, _Task)
        _wait_for(run_them.one(only), again)
    else:
        _wait_for(run_them.many(wanted), again)


@dataclass(slots=True)
class _Again:
    """How a run that is interrupted goes on."""

    agent: str | None
    db: str | None
    runs: list[str] = field(default_factory=list)
    """Those that have begun and not ended."""

    def line(self) -> str:
        """What to say last."""
        if not self.runs:
            return "interrupted; no run had begun"
        words = ["secateur", "run"]
        if self.agent is not None and ".py" in self.agent:
            words.append(self.agent)
        words += ["--resume", self.runs[0]]
        if self.db is not None and "://" not in self.db:
            words += ["--db", self.db]
        more = f" (and so with {', '.join(self.runs[1:])})" if self.runs[1:] else ""
        return f"interrupted; go on with: {shlex.join(words)}{more}"


def _wait_for(runs: Coroutine[Any, Any, bool], again: _Again) -> None:
    """Exit code 1 where a run failed."""
    try:
        failed = run_stoppable(runs, again.line)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Abort(again.line()) from None
    if failed:
        raise typer.Exit(1)


def _load(agent: str, max_tokens: int | None) -> Agent:
    runnable = Agent.of(load_agent(agent))
    if max_tokens is None:
        return runnable
    return Agent.of(replace(runnable, budget=replace(runnable.budget, tokens=max_tokens)))


def _open(engine: str, model: str) -> Engine:
    with ending_at_once():  # torch takes seconds to import
        return open_engine(engine, model)


def _code(agent: str) -> dict[str, str] | None:
    """What an agent's file is made of; None for one without a file, or whose file is not there."""
    file = file_of(agent)
    return code_of(file.absolute()) if file is not None and file.is_file() else None


def _recorded_agent(run: str, origin: Mapping[str, Any]) -> str:
    """The agent that the ledger names. A file is imported only where it is, byte for byte, the one
    that the run began with; whoever can write to the ledger could name another one.

    Raises :class:`ResumeError`.
    """
    agent = origin.get("agent")
    if agent is None:
        raise ResumeError(
            f"run {run} was started from Python: name its agent (`secateur run FILE.py:NAME "
            f"--resume {run}`), or resume it there"
        )
    file, code = file_of(agent), _code(agent)
    if file is None:
        return agent
    remedy = (
        "look at it, and if you trust it name it: "
        f"`secateur run {shlex.quote(agent)} --resume {shlex.quote(run)}`"
    )
    if code is None:
        raise ResumeError(
            f"run {run} began with {agent}: no such file; name its agent where it is now "
            f"(`secateur run FILE.py:NAME --resume {run}`)"
        )
    recorded = origin.get("code")
    if not isinstance(recorded, Mapping):
        raise ResumeError(
            f"run {run} began with {agent}, and the ledger does not say what was in it: {remedy}"
        )
    if code != recorded:
        names = code.keys() | recorded.keys()
        other = sorted(name for name in names if code.get(name) != recorded.get(name))
        raise ResumeError(
            f"run {run} began with {agent}, and {', '.join(other)} changed since: {remedy}"
        )
    beside = f" and {len(code) - 1} beside it" if len(code) > 1 else ""
    print(
        f"importing {file}{beside}, as when the run began (sha256 {code[file.name][:16]})",
        file=sys.stderr,
    )
    return agent


def _agent_anywhere(name: str) -> str:
    """A built-in agent's name, or an agent's file with its whole path."""
    return str(Path(name).absolute()) if ".py" in name else name


def _model_anywhere(name: str) -> str:
    """The name of a model, or a checkpoint's folder with its whole path."""
    plain = Path(name).name == name and name in {folder.name for folder in shipped_models()}
    return name if plain or not Path(name).is_dir() else str(Path(name).absolute())


@dataclass(frozen=True, slots=True)
class _Resumed:
    """What ``--resume`` was given, beside the run."""

    run: str
    agent: str | None
    task: str | None
    policy: str | None
    engine: str | None
    model: str | None
    db: str | None
    max_tokens: int | None
    sandbox: Path | None
    json: bool


def _resume(given: _Resumed) -> None:
    """Go on with a run; agent, engine and model are those that it began with, unless named."""
    settings = Settings()
    db = given.db or settings.db
    with AuditLog(db) as audit:
        found = audit.run(given.run)
    try:
        origin = resumable(db, found.run).started["options"].get("origin", {})
        agent = given.agent or _recorded_agent(found.run, origin)
        runnable = _load(agent, given.max_tokens)
        engine = settings.server(given.engine, origin.get("engine"))
        live = _open(engine, given.model or origin.get("model") or settings.model)
        again = _Again(given.agent, given.db, [found.run])
        run_them = _Runs(runnable, given.policy, live, db, given.sandbox, given.json, {}, again)
        _wait_for(run_them.again(found.run, given.task), again)
    except RunOverError as over:  # nothing failed: whoever resumes what is done finds it done
        print(json.dumps(found.as_json()) if given.json else one_line(over))
        raise typer.Exit(found.status != RunStatus.DONE) from None


_Go = Callable[[Ledger, Callable[[Thought], None]], Awaitable[RunResult]]
"""Does a run, and tells of every thought."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """What all runs of one command share."""

    agent: Agent
    policy: Policy | str | None
    engine: Engine
    db: str
    sandbox: Path | None
    json: bool
    origin: Mapping[str, Any]
    interrupted: _Again

    async def one(self, task: _Task) -> bool:
        """Run one task with a live picture; whether it failed."""
        began = self.interrupted.runs.append
        return await self._shown(lambda ledger, observe: self._run(ledger, task, observe, began))

    async def again(self, run: str, task: str | None) -> bool:
        """Go on with a run, with a live picture; whether it failed."""
        return await self._shown(
            lambda ledger, observe: self.agent.resume(
                run,
                task=task,
                policy=self.policy,
                engine=self.engine,
                ledger=ledger,
                sandbox=self.sandbox,
                observe=observe,
            )
        )

    async def _shown(self, go: _Go) -> bool:
        try:
            async with Ledger.open(self.db) as ledger:
                if self.json:
                    result = await go(ledger, _quiet)
                    print(json.dumps(outcome(result)))
                else:
                    result = await self._watched(ledger, go)
                    _print_result(result)
        finally:
            await self.engine.aclose()
        return result.status is not RunStatus.DONE

    async def many(self, tasks: Sequence[_Task | _Refused]) -> bool:
        """Run a file of tasks side by side, one line each, and last a table of what failed; whether
        any did."""
        console = Console(stderr=True)
        places = asyncio.Semaphore(_AT_ONCE)

        async def run_one(task: _Task | _Refused) -> tuple[int, RunResult | _Refused]:
            if isinstance(task, _Refused):
                return task.line, task
            async with places:
                return task.line, await self._one_of_many(ledger, task)

        failed: list[tuple[int, RunResult | _Refused]] = []
        try:
            async with Ledger.open(self.db) as ledger:
                running = [asyncio.ensure_future(run_one(task)) for task in tasks]
                try:
                    for future in track(running, "running tasks", console=console):
                        line, result = await future
                        if result.status != RunStatus.DONE:
                            failed.append((line, result))
                        self._print_one(result)
                finally:  # the ledger stays open until every run has written its end
                    for future in running:
                        future.cancel()
                    await asyncio.gather(*running, return_exceptions=True)
        finally:
            await self.engine.aclose()
        if failed and not self.json:
            _print_failed(failed, len(tasks))
        return bool(failed)

    async def _one_of_many(self, ledger: Ledger, task: _Task) -> RunResult | _Refused:
        """One task's result, or what it raised: no other task may suffer from that."""
        begun: list[str] = []

        def began(run: str) -> None:
            begun.append(run)
            self.interrupted.runs.append(run)

        try:
            result = await self._run(ledger, task, _quiet, began)
        except (Exception, asyncio.CancelledError) as error:
            now = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and now is not None and now.cancelling():
                raise
            result = _Refused(task.line, task.text, reason(error), *begun[:1])
        for run in begun:
            self.interrupted.runs.remove(run)
        return result

    def _print_one(self, result: RunResult | _Refused) -> None:
        if not self.json:
            _print_line(result)
        else:
            said = result.as_json() if isinstance(result, _Refused) else outcome(result)
            print(json.dumps(said), flush=True)

    async def _run(
        self,
        ledger: Ledger,
        task: _Task,
        observe: Callable[[Thought], None],
        started: Callable[[str], None],
    ) -> RunResult:
        return await self.agent.run(
            task.text,
            policy=self.policy,
            engine=self.engine,
            ledger=ledger,
            seed=task.seed,
            sandbox=self.sandbox,
            observe=observe,
            started=started,
            origin=self.origin,
        )

    async def _watched(self, ledger: Ledger, go: _Go) -> RunResult:
        async with shown_live(self.agent.name) as picture:
            return await go(ledger, picture.take)


def outcome(result: RunResult) -> dict[str, Any]:
    """One run as a JSON object."""
    return {
        "run": result.run_id,
        "agent": result.agent,
        "task": result.task,
        "policy": result.policy,
        "context": result.context,
        "status": result.status.value,
        "reason": result.reason,
        "result": result.answer,
        "thoughts": len(result.thoughts),
        "pruned": len(result.pruned),
        "tokens": result.tokens,
        "spent_after": result.spent_after,
        "waiting": [thought.id for thought in result.waiting],
        "seconds": round(result.seconds, 3),
        "sandbox": str(result.workspace),
    }


def _print_result(result: RunResult) -> None:
    console = Console()
    title = f"{result.agent} under policy {result.policy}"
    console.print(render_tree(_in_order(result.thoughts), title))
    console.print()
    if result.answer is not None:
        console.print(Fact("result", result.answer))
    said = (
        f"{result.run_id}: {result.status}, {len(result.thoughts)} thoughts, "
        f"{len(result.pruned)} pruned, {result.tokens} tokens, {result.seconds:.1f} s"
    )
    console.print(Fact("run   ", said))
    if result.reason is not None:
        console.print(Fact("reason", result.reason))
    if result.waiting:
        console.print(Fact("decide?", "secateur audit waiting", style="dim"))
    if result.pruned:
        told = f"secateur audit why {result.pruned[0].id[:8]}"
        console.print(Fact("why?   ", told, style="dim"))


def _print_line(result: RunResult | _Refused) -> None:
    if isinstance(result, _Refused):
        said = shortened(f"{shortened(result.task or '', 60)}: {result.error}", 160)
        print(f"{result.run or '-':12}  {result.status:9} {'':6}  {said}")
        return
    said = result.answer or result.reason or ""
    cut = f"{len(result.pruned)} cut" if result.pruned else ""
    print(f"{result.run_id}  {result.status:9} {cut:6}  {shortened(said, 90)}")


def _print_failed(failed: Sequence[tuple[int, RunResult | _Refused]], tasks: int) -> None:
    """Which tasks of a file came to no result, and why."""
    print(f"\n{len(failed)} of {tasks} tasks failed:")
    listed = table("line", "run", "status", "task", "why")
    for line, result in failed:
        if isinstance(result, _Refused):
            run, why = result.run or "-", result.error
        else:
            run, why = result.run_id, result.reason or ""
        task = shortened(result.task or "", 60)
        listed.add_row(str(line), run, str(result.status), task, shortened(why, 120))
    print_table(listed, "")


def _in_order(thoughts: Any) -> list[Thought]:
    return sorted(thoughts, key=lambda thought: (thought.path, thought.attempt))


def _quiet(thought: Thought) -> None:
    pass


def _read_tasks(path: Path, seed: int) -> list[_Task | _Refused]:
    """The tasks of a JSONL file, and the lines that hold none. Raises :class:`TasksError`."""
    try:
        raw = path.read_bytes()
        lines = (decoded(raw).encode() if marked(raw) else raw).split(b"\n")
    except OSError as error:
        raise TasksError(f"{path}: {error.strerror}; give a JSONL file of tasks") from None
    except UnicodeDecodeError:
        raise TasksError(
            f"{path}: no text, whatever its first bytes say; save it as UTF-8"
        ) from None
    found = [
        _read_task(path, number, line, seed) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise TasksError(f'{path}: no tasks; write one {{"task": "…"}} a line')
    return found


def _read_task(path: Path, number: int, line: bytes, seed: int) -> _Task | _Refused:
    try:
        row = json.loads(line.decode("utf-8-sig"))
        task, seed = row["task"], row.get("seed", seed)
    except UnicodeDecodeError:
        return _Refused(number, None, f"{path}:{number}: not UTF-8 text; save the tasks as UTF-8")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        wanted = f'{path}:{number}: no task; write {{"task": "…"}} with "seed" if you like'
        return _Refused(number, None, wanted)
    if not isinstance(task, str):
        kind = type(task).__name__
        return _Refused(number, None, f"{path}:{number}: the task is a {kind}; write a string")
    if not isinstance(seed, int) or isinstance(seed, bool):
        return _Refused(
            number, task, f"{path}:{number}: the seed is {seed!r}; write a whole number"
        )
    return _Task(task, seed, number)
