"""HTTP to the server: retries where they are safe, streams that end when they are closed.

aiohttp and orjson alone: a typed client costs several times more per streamed token.
"""

import asyncio
import contextlib
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson

from ..protocol import EngineError

__all__ = [
    "COMPLETIONS",
    "Feed",
    "LostError",
    "Patience",
    "RefusedError",
    "StalledError",
    "Wire",
    "base_url",
]

COMPLETIONS = "/v1/completions"

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same question may be asked again."""
_EVENT = b"data: "
_DONE = b"[DONE]"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again; seconds."""

    connect_s: float = 5.0
    first_s: float = 300.0
    """For the first token of a stream, or a whole reply: a busy server queues requests."""
    stall_s: float = 60.0
    """Between two tokens of a stream."""
    retries: int = 4
    """Times that a request is sent again, and only while nothing of its answer was read."""
    pause_s: float = 0.25
    """Before the first retry; doubled each time, with jitter."""
    longest_pause_s: float = 30.0
    """A server that asks for a longer pause (``Retry-After``) is given up."""


class RefusedError(EngineError):
    """The server answered, and said no; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LostError(EngineError):
    """The connection broke, or never came about."""


class StalledError(EngineError):
    """The server went silent for longer than it may."""


class _TryAgain(Exception):  # noqa: N818 - a signal between two functions of this module
    """A failure before anything was read."""

    def __init__(self, failure: EngineError, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


def base_url(url: str) -> str:
    """``http://host:port`` of an address with or without scheme and ``/v1``.

    Raises :class:`EngineError`.
    """
    address = url if "://" in url else f"http://{url}"
    address = address.rstrip("/").removesuffix("/v1")
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", address):
        raise EngineError(f"{url!r} is no address of a server; give http://HOST:PORT")
    return address


class Feed:
    """The events of one stream, in the batches in which they arrive."""

    __slots__ = ("_content", "_due", "_limit", "_loop", "_response", "_rest", "_timer", "_wire")

    def __init__(self, wire: "Wire", response: aiohttp.ClientResponse) -> None:
        self._wire = wire
        self._response = response
        self._content = response.content
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._limit = wire.patience.first_s
        self._due = self._loop.time() + self._limit
        # One timer a stream that looks whether it is late, instead of one a token.
        self._timer = self._loop.call_at(self._due, self._look)

    async def read(self) -> list[bytes]:
        """The JSON of the next events, at least one; empty at the stream's own end.

        Raises :class:`EngineError` when the connection breaks, or stalls.
        """
        while True:
            try:
                data = await self._content.readany()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._wire.lost(error) from None
            if not data:
                raise self._wire.lost(None)
            limit = self._wire.patience.stall_s
            self._due = self._loop.time() + limit
            if limit < self._limit:  # the timer was set for the longer wait for the first token
                self._timer.cancel()
                self._timer = self._loop.call_at(self._due, self._look)
            self._limit = limit
            events, ended = self._split(data)
            if events or ended:
                return events

    async def rest(self) -> None:
        """Read what follows the last token, so that the connection can serve again."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(1.0):
                while await self._content.readany():
                    pass

    def arrived(self) -> list[bytes]:
        """The events that have come and were not read."""
        try:
            return self._split(self._content.read_nowait())[0]
        except (aiohttp.ClientError, OSError, TimeoutError, EngineError, AssertionError):
            return []  # broken off, or nothing there: there is nothing to count

    def close(self) -> None:
        """Close the connection, unless it was read to its end: the server stops generating."""
        self._timer.cancel()
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def _split(self, data: bytes) -> tuple[list[bytes], bool]:
        if self._rest:
            data = self._rest + data
        *whole, self._rest = data.split(b"\n\n")
        events: list[bytes] = []
        for event in whole:
            if not event.startswith(_EVENT):
                if event.startswith(b":") or not event.strip():
                    continue  # a comment keeps the connection alive
                raise self._wire.fault(f"sent {_shown(event)} where an event was due")
            payload = event[6:]
            if payload == _DONE:
                return events, True
            events.append(payload)
        return events, False

    def _look(self) -> None:
        now = self._loop.time()
        if now < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
            return
        self._content.set_exception(TimeoutError(f"sent nothing for {self._limit:g} s"))


class Wire:
    """One server's address with the connections to it."""

    def __init__(self, url: str, patience: Patience, seed: int = 0) -> None:
        self.url = base_url(url)
        self.patience = patience
        self.shaken = False
        """Set when a connection failed: another server may answer the next request."""
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A whole reply. Raises :class:`EngineError`."""

        raw = await self._retrying(lambda: self._whole(method, path, body))
        try:
            reply = orjson.loads(raw)
        except orjson.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise self.fault(f"answered {path} with {_shown(raw)}, which is no JSON object")
        return reply

    async def text(self, path: str) -> str:
        """A page that is no JSON, such as ``/metrics``. Raises :class:`EngineError`."""

        return (await self._retrying(lambda: self._whole("GET", path, None))).decode()

    @asynccontextmanager
    async def stream(self, body: Any) -> AsyncGenerator[tuple[Feed, list[bytes]], None]:
        """A streamed completion with its first events; leaving closes it.

        Raises :class:`EngineError`.
        """

        feed, first = await self._retrying(lambda: self._begin(body))
        try:
            yield feed, first
        finally:
            feed.close()

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()

    def fault(self, said: str) -> EngineError:
        """The error of a server that does not behave; ``said`` continues its address."""
        return EngineError(
            f"the server at {self.url} {said}; see what is wrong: secateur engine check {self.url}"
        )

    def lost(self, error: BaseException | None) -> EngineError:
        """The error of a connection that broke, stalled, or never came about."""
        self.shaken = True
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            errno = getattr(error, "errno", None)
            reason = os.strerror(errno).lower() if errno and errno > 0 else "no connection"
            return LostError(
                f"no server answers at {self.url} ({reason}); start one (secateur engine serve "
                "MODEL), or correct the address"
            )
        remedy = "see its log, then run the task again"
        if isinstance(error, TimeoutError):
            why = str(error) or f"gave no answer within {self.patience.first_s:g} s"
            return StalledError(f"the server at {self.url} {why}; {remedy}")
        if error is None:
            why = "ended the stream before the generation was over"
        else:
            why = f"closed the connection ({_line(error)})"
        return LostError(f"the server at {self.url} {why}; {remedy}")

    async def _whole(self, method: str, path: str, body: Any) -> bytes:
        async with asyncio.timeout(self.patience.first_s):
            response = await self._send(method, path, body)
            try:
                return await response.read()
            finally:
                response.release()

    async def _begin(self, body: Any) -> tuple[Feed, list[bytes]]:
        async with asyncio.timeout(self.patience.first_s):
            feed = Feed(self, await self._send("POST", COMPLETIONS, body))
        try:
            first = await feed.read()
            self._look_for_error(first)
        except BaseException as error:  # cancelled too, the connection must not stay open
            feed.close()
            if isinstance(error, LostError):
                raise _TryAgain(error) from None
            raise
        return feed, first

    async def _send(self, method: str, path: str, body: Any) -> aiohttp.ClientResponse:
        """Send once. Raises what :meth:`_retrying` knows how to handle."""
        payload = None if body is None else orjson.dumps(body)
        headers = {} if payload is None else {"content-type": "application/json"}
        response = await self._live().request(
            method, self.url + path, data=payload, headers=headers
        )
        if response.status < 400:
            return response
        try:
            raise self._refused(response, path, _said(await response.read()))
        finally:
            response.release()

    def _refused(self, response: aiohttp.ClientResponse, path: str, said: str) -> Exception:
        status = response.status
        if status in (401, 403):
            remedy = "set VLLM_API_KEY to the server's key"
        elif status in _BUSY:
            remedy = "it is overloaded or broken: see its log"
        else:
            remedy = f"see what is wrong: secateur engine check {self.url}"
        failure = RefusedError(
            f"the server at {self.url} refused {path} ({status}: {said}); {remedy}", status
        )
        if status in _BUSY:
            return _TryAgain(failure, _seconds(response.headers.get("Retry-After")))
        return failure

    def _look_for_error(self, events: list[bytes]) -> None:
        """vLLM refuses some requests in the first event of a stream that began with status 200."""
        if not events or not events[0].startswith(b'{"error"'):
            return
        error = orjson.loads(events[0])["error"]
        status = error.get("code") if isinstance(error, dict) else None
        status = status if isinstance(status, int) else 500
        failure = RefusedError(
            f"the server at {self.url} refused {COMPLETIONS} ({status}: {_said(events[0])}); see "
            f"what is wrong: secateur engine check {self.url}",
            status,
        )
        raise _TryAgain(failure) if status in _BUSY else failure

    async def _retrying(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask, and ask again while nothing was read; generation has no effects but its tokens."""
        patience = self.patience
        for retry in range(patience.retries + 1):
            try:
                return await ask()
            except _TryAgain as again:
                failure, after = again.failure, again.after
                self.shaken = True
            except TimeoutError as error:
                raise self.lost(error) from None  # it had its time
            except (aiohttp.ClientError, OSError) as error:
                failure, after = self.lost(error), None
            pause = patience.pause_s * 2**retry * (1 + self._random.random())
            if after is not None:
                pause = max(pause, after)
            if retry == patience.retries or pause > patience.longest_pause_s:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("the last round returns or raises")

    def _live(self) -> aiohttp.ClientSession:
        """The session of this event loop; one that another loop left behind is dropped."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            key = os.environ.get("VLLM_API_KEY")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.connect_s),
                headers={"authorization": f"Bearer {key}"} if key else None,
                read_bufsize=2**20,
            )
            self._loop = loop
        return self._session


def _said(raw: bytes) -> str:
    """The message of an error's JSON, or of what came instead, in one line."""
    try:
        found = orjson.loads(raw)
        found = found.get("error", found)
        found = found.get("message", found) if isinstance(found, dict) else found
    except (orjson.JSONDecodeError, AttributeError):
        found = raw.decode("utf-8", "replace")
    return " ".join(str(found).split())[:200] or "no reason given"


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; a date is left to our own pauses."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shown(raw: bytes) -> str:
    text = " ".join(raw[:120].decode("utf-8", "replace").split())
    return repr(text[:80])
