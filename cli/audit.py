"""``secateur audit``: ask the ledger what ran, what was cut, and why."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from ..runtime.ledger.reading.answers import RunRow
from ..runtime.pictures.looks import shortened
from ..runtime.screen import Console
from .terminal import (
    AfterOption,
    DbOption,
    Fact,
    JsonOption,
    LimitOption,
    RunArgument,
    SinceOption,
    UntilOption,
    open_ledger,
    print_json,
    print_table,
    say_more,
    table,
    when,
)
from .why import print_why

__all__ = ["app"]

app = typer.Typer(help="Ask the ledger what ran, what was cut, and why.", no_args_is_help=True)

TagOption = Annotated[str | None, typer.Option(help="With this tag.")]
ReadingOption = Annotated[
    str | None, typer.Option(help="With this reading: peak, opened, rate, posterior …")
]
MinOption = Annotated[float | None, typer.Option("--min", min=0, help="It was at least this.")]
MaxOption = Annotated[float | None, typer.Option("--max", min=0, help="It was at most this.")]
ActionOption = Annotated[
    str | None, typer.Option(help="The verdict: allow, flag, resample, prune, escalate, halt.")
]
AgentOption = Annotated[str | None, typer.Option(help="Of this agent.")]
RunOption = Annotated[str | None, typer.Option(help="Of this run (the start of its id).")]
ContextOption = Annotated[str | None, typer.Option(help="In this context of the policy.")]
ModelOption = Annotated[str | None, typer.Option(help="Written by this model.")]
PolicyOption = Annotated[
    str | None, typer.Option(help="Judged by this policy: its name, or the start of its digest.")
]
OperationOption = Annotated[str | None, typer.Option(help="Made by this operation of the plan.")]
Field = Literal["text", "prompt"]
FieldOption = Annotated[
    Field | None, typer.Option("--in", help="Words only in what was written, or was asked.")
]


@app.command()
def runs(
    status: Annotated[
        str | None, typer.Option(help="done, empty, exhausted, escalated, … or unfinished.")
    ] = None,
    agent: AgentOption = None,
    context: ContextOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Runs, newest first.

    Example: secateur audit runs --status unfinished --since 7d
    """
    with open_ledger(db) as audit:
        found = audit.runs(
            limit,
            after,
            status=status,
            agent=agent,
            context=context,
            model=model,
            policy=policy,
            since=since,
            until=until,
        )
    say_more(found)
    if json_:
        print_json([run.as_json() for run in found])
        return
    shown = table(
        "run", "started", "agent", "policy", "status", "thoughts", "cut", "tokens", "task"
    )
    for run in found:
        shown.add_row(
            run.run,
            when(run.started_at),
            run.agent,
            run.policy,
            run.status,
            str(run.thoughts),
            str(run.pruned),
            str(run.tokens),
            shortened(run.task, 50),
        )
    print_table(shown, "no runs yet, or none that fits: try `secateur run opsdesk`")


@app.command()
def show(run: RunArgument, db: DbOption = None, json_: JsonOption = False) -> None:
    """One run: what it was bound to, and each of its events.

    Example: secateur audit show 1qebdd97
    """
    with open_ledger(db) as audit:
        found, events, thoughts = audit.run(run), audit.events(run), audit.thoughts(run)
    weights = _weights(events)
    if json_:
        print_json(
            found.as_json()
            | {
                "weights": weights,
                "graph": [thought.as_json() for thought in thoughts],
                "events": [event.as_json() for event in events],
            }
        )
        return
    for name, value in {**_facts(found), "weights": weights}.items():
        Console().print(Fact(name, value, 10))
    _print_events(events)


@app.command()
def events(
    run: RunArgument,
    kind: Annotated[str | None, typer.Option(help="Of this kind: judged, decided …")] = None,
    actor: Annotated[
        str | None, typer.Option(help="By this actor: gate, runtime, tool:NAME, person:NAME.")
    ] = None,
    thought: Annotated[str | None, typer.Option(help="About this thought.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, in their order.")] = 1000,
    after: Annotated[int | None, typer.Option(help="Go on after this seq.")] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """A run's events in order; with --json, their bodies too.

    Example: secateur audit events 1qebdd97 --kind decided
    """
    with open_ledger(db) as audit:
        found = audit.events(
            run,
            kind=kind,
            actor=actor,
            thought=thought,
            since=since,
            until=until,
            limit=limit,
            after=after,
        )
    say_more(found)
    if json_:
        print_json([event.as_json() for event in found])
        return
    _print_events(found)


@app.command()
def pruned(
    tag: TagOption = None,
    reading: ReadingOption = None,
    min_: MinOption = None,
    max_: MaxOption = None,
    action: ActionOption = None,
    agent: AgentOption = None,
    run: RunOption = None,
    context: ContextOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    operation: OperationOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    text: Annotated[
        str | None, typer.Option(help='Words and "quoted phrases" in prompt or output.')
    ] = None,
    in_: FieldOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Branches that were cut, newest first; tag, reading and scores are those that decided.

    Example: secateur audit pruned --tag deceit --since 7d --min 0.8
    """
    with open_ledger(db) as audit:
        found = audit.pruned(
            limit,
            after,
            tag=tag,
            reading=reading,
            min_score=min_,
            max_score=max_,
            action=action,
            agent=agent,
            run=run,
            context=context,
            model=model,
            policy=policy,
            operation=operation,
            since=since,
            until=until,
            text=text,
            field=in_,
        )
    say_more(found)
    if json_:
        print_json([row.as_json() for row in found])
        return
    shown = table("thought", "run", "agent", "at", "tag", "reading", "score", "from", "text")
    for row in found:
        shown.add_row(
            row.thought[:8],
            row.run,
            row.agent,
            when(row.at),
            row.tag or "",
            row.reading or "",
            "" if row.score is None else f"{row.score:.3f}",
            "" if row.threshold is None else f"{row.threshold:g}",
            shortened(row.text or row.reason or "", 60),
        )
    print_table(shown, "nothing was cut, or nothing that fits")


@app.command()
def search(
    text: Annotated[
        str | None, typer.Argument(help='Words and "quoted phrases"; all thoughts if not given.')
    ] = None,
    in_: FieldOption = None,
    tag: TagOption = None,
    reading: ReadingOption = None,
    min_: MinOption = None,
    max_: MaxOption = None,
    action: ActionOption = None,
    status: Annotated[
        str | None, typer.Option(help="kept, pruned, failed, escalated or dropped.")
    ] = None,
    agent: AgentOption = None,
    run: RunOption = None,
    context: ContextOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    operation: OperationOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Thoughts by their words, prompts included, and by what became of them; newest first.

    With --reading, --min and --max are of that reading as recorded, whether it decided or not.

    Example: secateur audit search '"all checks passed" deploy' --status kept --since 7d
    """
    with open_ledger(db) as audit:
        found = audit.search(
            text,
            limit,
            after,
            field=in_,
            tag=tag,
            reading=reading,
            min_score=min_,
            max_score=max_,
            action=action,
            status=status,
            agent=agent,
            run=run,
            context=context,
            model=model,
            policy=policy,
            operation=operation,
            since=since,
            until=until,
        )
    say_more(found)
    if json_:
        print_json([row.as_json() for row in found])
        return
    shown = table("thought", "run", "agent", "at", "status", "tag", "score", "where")
    for row in found:
        shown.add_row(
            row.thought[:8],
            row.run,
            row.agent,
            when(row.at),
            row.status.value,
            row.tag or "",
            "" if row.score is None else f"{row.score:.3f}",
            shortened(row.excerpt or row.text or row.reason or "", 100),
        )
    print_table(shown, "no thought fits")


@app.command()
def why(
    thought: Annotated[str, typer.Argument(help="A thought's id, or the start of it.")],
    run: Annotated[
        str | None, typer.Option(help="The run, where several have the thought.")
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Why a thought was cut: rule, reading, tokens, and what would have let it pass.

    Example: secateur audit why 3f9a1c
    """
    with open_ledger(db) as audit:
        found = audit.why(thought, run)
    if json_:
        print_json(found.as_json())
        return
    print_why(found, Console())


def _print_events(events: Any) -> None:
    shown = table("seq", "at", "kind", "actor", "thought", "hash")
    for event in events:
        shown.add_row(
            str(event.seq),
            when(event.at),
            event.kind,
            event.actor,
            event.thought or "",
            event.hash[:12],
        )
    print_table(shown, "no events, or none that fits")


def _weights(events: Any) -> str:
    """How it was known which model answers, at the run's start and whenever it went on."""
    asked = [event.body for event in events if event.kind in ("run_started", "resumed")]
    return ", then ".join(body.get("weights", "not recorded (version 0.1)") for body in asked)


def _facts(run: RunRow) -> Mapping[str, str]:
    digests = ", ".join(f"{name} {digest[:12]}" for name, digest in run.digests.items())
    return {
        "run": run.run,
        "agent": run.agent,
        "task": run.task,
        "context": run.context or "none",
        "status": run.status,
        "result": run.result or "none",
        "started": run.started_at,
        "finished": run.finished_at or "not yet",
        "seed": str(run.seed),
        "policy": run.policy,
        "model": f"{run.model} ({run.engine})",
        "digests": digests,
        "thoughts": f"{run.thoughts}, {run.pruned} cut, {run.tokens} tokens",
    }
