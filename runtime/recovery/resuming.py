"""Whether a run can be resumed, and with what."""

from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

from sqlalchemy.exc import DBAPIError

from ...agents.budget import Budget
from ...agents.spec import AgentSpec
from ...gates.errors import SecateurError
from ...gates.policy import Policy
from ..engines.protocol import EngineInfo
from ..engines.weights import SAME_NATS, apart
from ..ledger import connect
from ..ledger.errors import LedgerError
from ..ledger.events import RunStatus
from ..ledger.ledger import Ledger
from .fingerprint import changed, fingerprint
from .history import History, read_history

__all__ = [
    "ResumeError",
    "RunOverError",
    "as_it_began",
    "check_resumable",
    "lay_out_again",
    "read_run",
    "resumable",
]


class ResumeError(SecateurError):
    """A run that cannot be resumed, or not with this agent, task or policy."""


class RunOverError(ResumeError):
    """A run that has come to its end: nothing of it is left to do."""


async def read_run(ledger: Ledger, run: str) -> History:
    """The history of a run, checked. Raises :class:`LedgerError`."""
    return await ledger.ask(lambda connection: read_history(connection, run))


def check_resumable(
    history: History, agent: AgentSpec, task: str | None, policy: Policy | None
) -> None:
    """Raises :class:`ResumeError`, in one line, where this agent cannot go on with that run.

    A task or policy that is not given is the run's own. Model, tokenizer and vocabulary are checked
    when the run's record is opened again.
    """
    run, began = history.run, history.started
    _check_end(history, agent.budget)
    if agent.name != began["agent"]:
        raise ResumeError(
            f"run {run} is one of agent {began['agent']!r}, not of {agent.name!r}: resume it with "
            "that one"
        )
    if "plan" not in began["options"]:
        raise ResumeError(f"run {run} was recorded before runs could be resumed: run it anew")
    difference = changed(began["options"]["plan"], fingerprint(agent))
    if difference is not None:
        raise ResumeError(
            f"the plan of agent {agent.name!r} is not that of run {run} ({difference}): resume it "
            "with the agent as it was, or run it anew"
        )
    if task is not None and task != history.task:
        raise ResumeError(
            f"run {run} has another task, {history.task[:60]!r}: leave the task out, or run it anew"
        )
    if policy is not None and policy.digest != began["policy"]:
        named = "" if history.policy is None else f", {history.policy.name!r}"
        raise ResumeError(
            f"run {run} has another policy{named} ({began['policy'][:12]}, not "
            f"{policy.digest[:12]}): leave the policy out, or run it anew"
        )


def as_it_began(history: History, info: EngineInfo) -> EngineInfo:
    """What the run is bound to, where the engine still has the model that it began with.

    A run that version 0.1 began names the model by the files that 0.1 knew of, and goes on under
    that name. Raises :class:`ResumeError` where a server's weights are not those of before; other
    differences are found when the run's record is opened again.
    """
    run, began = history.run, history.started
    before = began.get("probe", ())
    if before and info.probe and apart(before, info.probe) > SAME_NATS:
        raise ResumeError(
            f"run {run} began on a server with other weights: a fixed text's tokens are "
            f"{apart(before, info.probe):.2f} nats apart; serve those, or run it anew"
        )
    of_0_1 = "weights" not in began
    if of_0_1 and began["digests"]["model"] == info.former_digest:
        return replace(info, model_digest=info.former_digest)
    return info


def resumable(db: str, run: str) -> History:
    """The history of a run that can go on with some agent, checked against its hashes before
    anything that it names is used.

    Raises :class:`ResumeError` and :class:`LedgerError`.
    """
    engine = connect.open_existing(db)
    try:
        with engine.connect() as connection:
            history = read_history(connection, run)
    except DBAPIError as error:
        raise LedgerError(connect.explain(error, connect.place(engine.url))) from None
    finally:
        engine.dispose()
    _check_end(history, None)
    return history


def _check_end(history: History, budget: Budget | None) -> None:
    """The budget is that of the agent which is to go on; None where it is not known yet."""
    run = history.run
    if history.open:
        return
    match history.ended:
        case RunStatus.DONE | RunStatus.EMPTY:
            raise RunOverError(f"run {run} is {history.ended} already: {history.result}")
        case RunStatus.HALTED:
            raise RunOverError(f"run {run} was halted and stays so: {history.result}")
        case RunStatus.ESCALATED:
            names = ", ".join(history.waiting)
            raise ResumeError(
                f"run {run} waits for a person to decide on {names}: `secateur audit decide "
                f"{history.waiting[0]} --approve --by NAME --reason TEXT`, or --refuse"
            )
        case RunStatus.EXHAUSTED if budget is not None:
            before = history.started["options"].get("budget", {})
            if all(getattr(budget, name) == before[name] for name in before):
                raise ResumeError(
                    f"run {run} spent its budget: {history.result}; give a larger one, such as "
                    "--max-tokens"
                )
        case RunStatus.FAILED | RunStatus.CANCELLED | RunStatus.EXHAUSTED | None:
            return


def lay_out_again(folder: Path) -> None:
    """Move aside what was being laid out in a new folder when the process was killed."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.unfinished-{number}")).exists():
        number += 1
    mode = S_IMODE(folder.stat().st_mode)
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    folder.chmod(mode)
