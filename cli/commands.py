"""The groups of commands put together, and how their errors are told."""

import sys

import typer
from typer.exceptions import TyperException

from ..gates.errors import SecateurError
from ..runtime.logs import show_logs
from ..runtime.redaction import redacted
from ..runtime.screen import StreamError
from . import audit, db, decide, engine, integrity, models, pictures, policy, run
from . import export as taking
from . import replay as judging
from .pretrain import app as pretrain_app

__all__ = ["app", "call"]

app = typer.Typer(
    name="secateur",
    help="Agents that think in graphs; branches whose behaviour tags cross the line are cut.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("models")(models.models)
audit.app.add_typer(integrity.app)
audit.app.add_typer(pictures.app)
audit.app.add_typer(judging.app)
audit.app.add_typer(taking.app)
audit.app.add_typer(decide.app)
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(pretrain_app, name="pretrain")
app.add_typer(engine.app, name="engine")
app.add_typer(db.app, name="db")


@app.callback()
def _settle(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log every step to stderr."),
) -> None:
    show_logs(verbose)


def call() -> int:
    """Run what the arguments ask for; its exit code. Errors are told in one line."""
    try:
        code = app(standalone_mode=False)
    except StreamError:
        raise
    except SecateurError as error:
        return _say(str(error), 1)
    except typer.Abort as abort:
        return _say(str(abort) or "interrupted", 130)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except TyperException as error:  # wrong usage, in Typer's words
        line = error.format_message()
        return _say(f"{line} (see secateur --help)" if line else "", error.exit_code)
    if code == 130:  # what Typer makes of Ctrl-C in a command that does not say more itself
        return _say("interrupted", 130)
    return code if isinstance(code, int) else 0


def _say(message: str, code: int) -> int:
    if message:  # asking for help with no arguments has none
        print(f"error: {redacted(' '.join(message.split()))}", file=sys.stderr)
    return code
