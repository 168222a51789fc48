"""The command line: one module for each group of commands, which :mod:`.commands` puts together."""

import sys
import traceback
from types import TracebackType
from typing import Any

from .interrupts import ending_at_once

__all__ = ["app", "main"]  # pyright: ignore[reportUnsupportedDunderAll]


def main() -> None:
    """Run the command line: exit code 0 fine, 1 the thing failed, 2 usage; errors in one line.

    130 after Ctrl-C, 141 where nobody reads the output any more.
    """
    with ending_at_once():
        from ..runtime.screen import StreamError, StreamGoneError, flush_streams, take_streams
        from .commands import call
    sys.excepthook = _show_fault
    take_streams()
    try:
        code = call()
        flush_streams()
    except StreamGoneError:
        code = 141
    except StreamError as error:
        code = 1
        print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(code)


def _show_fault(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of our own with its traceback, which may quote an address."""
    from ..runtime.redaction import redacted

    print(
        redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr
    )


def __getattr__(name: str) -> Any:
    if name == "app":  # not imported above, so that Ctrl-C is heeded from the first moment
        from .commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
