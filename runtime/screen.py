"""Where text meets a terminal: every stream and console of the command line spells it first.

What comes from tasks, models, tools, servers and files is printed as characters to be read; colours
and the moves of the cursor are ours alone. What a stream's encoding lacks is spelt too.
"""

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO, cast

import rich.console
from rich.console import ConsoleOptions, JustifyMethod, OverflowMethod, RenderableType, RenderHook
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from ..gates.errors import SecateurError
from ..gates.visible import spelt, visible

__all__ = ["Console", "StreamError", "StreamGoneError", "Words", "flush_streams", "take_streams"]

_SPELT = "secateur.spelt"
_WIDE = 1 << 30
"""Columns where the output is no terminal: no line is broken."""


class StreamError(SecateurError):
    """Standard output or standard error that cannot be written: a full disk, for one."""


class StreamGoneError(Exception):
    """Whoever read standard output or standard error does not any more, like ``head``."""


def take_streams() -> None:
    """From now on whatever is written to ``sys.stdout`` and ``sys.stderr`` is spelt first."""
    codecs.register_error(_SPELT, _spell_what_is_lacking)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Screen):
            continue
        if stream is None:  # closed by whoever started us
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELT)
        setattr(sys, name, _Screen(stream))


def flush_streams() -> None:
    """Write what is held back, so that what cannot be written is known before the end.

    Raises :class:`StreamError` and :class:`StreamGoneError`.
    """
    sys.stdout.flush()
    sys.stderr.flush()


class _Screen(io.TextIOBase):
    """A stream that spells what is written to it; what cannot be written is told once."""

    def __init__(self, stream: TextIO, spells: bool = True) -> None:
        self._stream, self._spells = stream, spells

    def write(self, text: str, /) -> int:
        try:
            self._stream.write(visible(text) if self._spells else text)
        except OSError as error:
            raise self._lost(error) from None
        return len(text)

    @property
    def rich_proxied_file(self) -> "_Screen":
        """Where rich writes, which has spelt its text and adds escapes of its own."""
        if not self._spells:
            return self
        below = getattr(self._stream, "rich_proxied_file", None)  # of a live picture
        if isinstance(below, _Screen):
            return below.rich_proxied_file
        return _Screen(self._stream, spells=False)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._lost(error) from None
        except ValueError:  # closed already
            pass

    def _lost(self, error: OSError) -> Exception:
        """What to raise; and nothing more is tried, not by Python at its end either."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            return StreamGoneError()
        name = getattr(self._stream, "name", "")
        what = {"<stdout>": "standard output", "<stderr>": "standard error"}.get(name, "the output")
        return StreamError(f"{what} cannot be written: {error.strerror}; make room, or redirect it")

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.errors

    @property
    def buffer(self) -> Any:
        return self._stream.buffer


class Console(rich.console.Console):
    """A console on which no text is markup, an emoji's name or an escape.

    On standard output, or with ``stderr`` on the other; as wide as the terminal (or ``COLUMNS``
    says), and without a limit where there is none.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        stream = sys.stderr if stderr else sys.stdout
        if width is None and not stream.isatty() and "COLUMNS" not in os.environ:
            width = _WIDE
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Spelt before it is laid out, so that widths are right."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Whatever is rendered, and however it got here, is spelt."""
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def out(self, *objects: Any, **options: Any) -> None:
        super().out(*(visible(str(each)) for each in objects), **options)

    def push_render_hook(self, hook: RenderHook) -> None:
        """A live picture catches what is printed meanwhile, and would heed its escapes."""
        super().push_render_hook(hook)
        take_streams()

    def on_broken_pipe(self) -> None:
        raise StreamGoneError


class Words(Text):
    """Styled text that is spelt before it is laid out."""

    def __init__(
        self,
        text: str = "",
        style: str | Style = "",
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        no_wrap: bool | None = None,
        end: str = "\n",
        tab_size: int | None = None,
        spans: Any = None,
    ) -> None:
        super().__init__(
            visible(text),
            style,
            justify=justify,
            overflow=overflow,
            no_wrap=no_wrap,
            end=end,
            tab_size=tab_size,
            spans=spans,
        )

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> "Words":
        return cast("Words", super().assemble(*parts, **options))

    def append(self, text: Text | str, style: str | Style | None = None) -> "Words":
        return cast(
            "Words", super().append(visible(text) if isinstance(text, str) else text, style)
        )


def _spell_what_is_lacking(error: UnicodeError) -> tuple[str, int]:
    """A codec's way out: the characters that an encoding lacks, as JSON spells them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelt(error.object[error.start : error.end]), error.end
