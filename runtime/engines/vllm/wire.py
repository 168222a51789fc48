"""HTTP to the server: retries where they are safe, streams that end when they are closed.

A server may be slow, broken or hostile. Only tokens renew the time that a stream has, every reply
has a size that it may not pass, and no redirect is followed. aiohttp and orjson alone: a typed
client costs several times more per streamed token.
"""

import asyncio
import base64
import contextlib
import netrc
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from ...redaction import redacted, shown_url
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

_MOST = 4 << 20
"""Bytes of a reply, unless whoever asks expects more."""
_MOST_SAID = 64 << 10
"""Bytes of an error's reason."""
_MOST_EVENT = 1 << 20
"""Bytes of one event of a stream: a token and the probabilities of 128 tags take some 10,000."""
_MOST_IDLE = 16 << 20
"""Bytes of a stream without one token in them."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again; seconds."""

    connect_s: float = 5.0
    answer_s: float = 60.0
    """For a whole reply for which nothing is generated: who it is, how it splits text."""
    first_s: float = 300.0
    """For the first token of a stream, or a whole reply with tokens or probabilities in it, all
    tries together: a busy server queues requests."""
    stall_s: float = 60.0
    """Between two tokens of a stream. Bytes that bring no token do not count."""
    retries: int = 4
    """Times that a request is sent again, and only while nothing of its answer was read."""
    pause_s: float = 0.25
    """Before the first retry; doubled each time, with jitter."""
    longest_pause_s: float = 30.0
    """A server that asks for a longer pause (``Retry-After``) is given up."""


class RefusedError(EngineError):
    """The server answered, and said no; ``status`` is HTTP's, and ``said`` its reason."""

    def __init__(self, message: str, status: int, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class LostError(EngineError):
    """The connection broke, or never came about."""


class StalledError(EngineError):
    """The server brought nothing for longer than it may."""


class _TryAgain(Exception):  # noqa: N818 - a signal between two functions of this module
    """A failure before anything was read."""

    def __init__(self, failure: EngineError, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


def base_url(url: str) -> str:
    """``http://host:port`` of an address with or without scheme and ``/v1``.

    Raises :class:`EngineError`, also for an address with a login in it: addresses are recorded.
    """
    address = url if "://" in url else f"http://{url}"
    address = address.rstrip("/").removesuffix("/v1")
    if "@" in address:
        raise EngineError(
            f"{shown_url(address)} has a login in it, and addresses are recorded: leave it out, "
            "and set VLLM_API_KEY to the server's key, or write user and password into ~/.netrc"
        )
    try:
        there = re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", address) and (
            urlsplit(address).port != 0 and urlsplit(address).hostname
        )
    except ValueError:
        there = None
    if not there:
        shown = shown_url(url)
        raise EngineError(f"{shown!r} is no address of a server; give http://HOST:PORT")
    return address


class Feed:
    """The events of one stream, in the batches in which they arrive.

    What a server may take is counted while somebody waits for it, from one token to the next:
    whoever reads the tokens says so with :meth:`progress`.
    """

    __slots__ = (
        "_content",
        "_due",
        "_idle",
        "_limit",
        "_loop",
        "_read_at",
        "_response",
        "_rest",
        "_timer",
        "_waiting",
        "_wire",
        "ended",
    )

    def __init__(self, wire: "Wire", response: aiohttp.ClientResponse, due: float) -> None:
        """``due`` is when the first token must be here, on the event loop's clock."""
        self._wire = wire
        self._response = response
        self._content = response.content
        self._rest = bytearray()
        self.ended = False
        """Whether the server has said that the stream is over."""
        self._idle = 0
        self._loop = asyncio.get_running_loop()
        self._limit = wire.patience.first_s
        self._due = due
        self._read_at = self._loop.time()
        self._waiting = False
        # One timer a stream that looks whether it is late, instead of one a token.
        self._timer = self._loop.call_at(due, self._look)

    async def read(self) -> list[bytes]:
        """The JSON of the next events, at least one; empty at the stream's own end.

        Raises :class:`EngineError` when the connection breaks, brings no token for too long, or
        what comes is no stream of events.
        """
        if self.ended:
            raise self._wire.lost(None)
        self._due += self._loop.time() - self._read_at  # what the reader took is not the server's
        if self._timer.when() > self._due:  # the reader took long
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._look)
        self._waiting = True
        try:
            while True:
                try:
                    data = await self._content.readany()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    raise self._wire.lost(error) from None
                if not data:
                    raise self._broken_off()
                self._idle += len(data)
                if self._idle > _MOST_IDLE:
                    raise self._wire.fault(f"sent {_MOST_IDLE >> 20} MiB without a token")
                events, self.ended = self._split(data)
                if events or self.ended:
                    return events
        finally:
            self._waiting = False
            self._read_at = self._loop.time()

    def progress(self) -> None:
        """Tokens have come: the time until the next one begins."""
        self._idle = 0
        limit = self._wire.patience.stall_s
        self._due = self._read_at + limit
        if limit < self._limit:  # the timer was set for the longer wait for the first token
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._look)
        self._limit = limit

    async def rest(self) -> None:
        """Read what follows the last token, so that the connection can serve again."""
        with contextlib.suppress(EngineError, TimeoutError, aiohttp.ClientError, OSError):
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
            seen = len(self._rest) - 1
            self._rest += data
            if self._rest.find(b"\n\n", seen) < 0:
                self._check_size(self._rest)
                return [], False
            data = bytes(self._rest)
        *whole, rest = data.split(b"\n\n")
        self._rest = bytearray(rest)
        self._check_size(self._rest)
        events: list[bytes] = []
        for event in whole:
            if not event.startswith(_EVENT):
                if event.startswith(b":") or not event.strip():
                    continue  # a comment keeps the connection alive
                raise self._wire.fault(f"sent {_shown(event)} where an event was due")
            payload = event[6:]
            if payload == _DONE:
                return events, True
            self._check_size(payload)
            events.append(payload)
        return events, False

    def _check_size(self, event: bytes | bytearray) -> None:
        if len(event) > _MOST_EVENT:
            raise self._wire.fault(f"sent an event of more than {_MOST_EVENT >> 20} MiB")

    def _broken_off(self) -> EngineError:
        rest = bytes(self._rest[:200])
        if rest.strip() and not rest.startswith((_EVENT[: len(rest)], b":")):
            return self._wire.fault(f"sent {_shown(rest)} where an event was due")
        return self._wire.lost(None)

    def _look(self) -> None:
        now = self._loop.time()
        if not self._waiting:
            self._timer = self._loop.call_at(now + self._limit, self._look)
        elif now < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self._content.set_exception(TimeoutError(f"sent no token for {self._limit:g} s"))


class Wire:
    """One server's address with the connections to it."""

    def __init__(
        self,
        url: str,
        patience: Patience,
        seed: int = 0,
        *,
        key_variable: str = "VLLM_API_KEY",
        proxied: bool = False,
    ) -> None:
        """The key is that of the variable ``key_variable``; where it is not set, user and password
        are those of the machine in ``~/.netrc``. With ``proxied``, the proxies of the surroundings
        are used. Raises :class:`EngineError`."""
        self.url = base_url(url)
        self.patience = patience
        self.shaken = False
        """Set when a connection failed: another server may answer the next request."""
        self._key_variable = key_variable
        self._proxied = proxied
        self._authorization = _authorization(self.url, key_variable)
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def json(
        self, method: str, path: str, body: Any = None, *, most: int = _MOST
    ) -> dict[str, Any]:
        """A whole reply of at most so many bytes. Raises :class:`EngineError`."""
        raw = await self.whole(method, path, body, most=most)
        try:
            reply = orjson.loads(raw)
        except orjson.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise self.fault(f"answered {path} with {_shown(raw)}, which is no JSON object")
        return reply

    async def whole(self, method: str, path: str, body: Any = None, *, most: int = _MOST) -> bytes:
        """The bytes of a whole reply, at most so many. Raises :class:`EngineError`."""
        patience = self.patience
        generates = path.endswith("/completions")
        limit = patience.first_s if generates else min(patience.answer_s, patience.first_s)

        async def ask(due: float) -> bytes:
            async with asyncio.timeout_at(due):
                response = await self._send(method, path, body)
                try:
                    return await self._bounded(response, path, most)
                finally:
                    response.close()

        return await self._retrying(ask, limit)

    @asynccontextmanager
    async def stream(self, body: Any) -> AsyncGenerator[tuple[Feed, list[bytes]], None]:
        """A streamed completion with its first events; leaving closes it.

        Raises :class:`EngineError`.
        """

        feed, first = await self._retrying(
            lambda due: self._begin(body, due), self.patience.first_s
        )
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
            f"the server at {self.url} {self._hidden(said)}; see what is wrong: secateur engine "
            f"check {self.url}"
        )

    def lost(self, error: BaseException | None, limit: float | None = None) -> EngineError:
        """The error of a connection that broke, stalled (after ``limit`` seconds), or never came
        about."""
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
            limit = self.patience.first_s if limit is None else limit
            why = str(error) or f"gave no answer within {limit:g} s"
            return StalledError(f"the server at {self.url} {why}; {remedy}")
        if error is None:
            why = "ended the stream before the generation was over"
        else:
            why = f"closed the connection ({self._hidden(_line(error))})"
        return LostError(f"the server at {self.url} {why}; {remedy}")

    async def _begin(self, body: Any, due: float) -> tuple[Feed, list[bytes]]:
        async with asyncio.timeout_at(due):
            feed = Feed(self, await self._send("POST", COMPLETIONS, body), due)
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
            method, self.url + path, data=payload, headers=headers, allow_redirects=False
        )
        try:
            if response.status >= 400:
                raise self._refused(response, path, _said(await self._reason(response)))
            coding = response.headers.get("Content-Encoding", "identity")
            if coding.casefold() != "identity":  # which nobody asked for: it may unfold to anything
                raise self.fault(f"answered {path} packed as {_shown(coding.encode())}")
            if response.status >= 300:
                where = shown_url(response.headers.get("Location", "nowhere"))
                raise self.fault(
                    f"answered {path} with a redirect ({response.status}) to "
                    f"{_shown(where.encode())}, and none is followed: give the address of the "
                    "server itself"
                )
        except BaseException:
            response.close()
            raise
        return response

    async def _bounded(self, response: aiohttp.ClientResponse, path: str, most: int) -> bytes:
        found = bytearray()
        while data := await response.content.readany():
            found += data
            if len(found) > most:
                raise self.fault(f"answered {path} with more than {most >> 10} KiB")
        return bytes(found)

    async def _reason(self, response: aiohttp.ClientResponse) -> bytes:
        """The first bytes of why it was refused; a reason that does not end is cut."""
        found = bytearray()
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(self.patience.connect_s):
                while len(found) < _MOST_SAID and (data := await response.content.readany()):
                    found += data
        return bytes(found[:_MOST_SAID])

    def _refused(self, response: aiohttp.ClientResponse, path: str, said: str) -> Exception:
        status = response.status
        said = self._hidden(said)
        if status in (401, 403):
            remedy = f"set {self._key_variable} to the server's key, or write its login to ~/.netrc"
        elif status in _BUSY:
            remedy = "it is overloaded or broken: see its log"
        else:
            remedy = f"see what is wrong: secateur engine check {self.url}"
        failure = RefusedError(
            f"the server at {self.url} refused {path} ({status}: {said}); {remedy}", status, said
        )
        if status in _BUSY:
            return _TryAgain(failure, _seconds(response.headers.get("Retry-After")))
        return failure

    def _look_for_error(self, events: list[bytes]) -> None:
        """vLLM refuses some requests in the first event of a stream that began with status 200."""
        if not events or not events[0].startswith(b'{"error"'):
            return
        try:
            error = orjson.loads(events[0])["error"]
        except orjson.JSONDecodeError:
            raise self.fault(f"sent {_shown(events[0])} where an event was due") from None
        status = error.get("code") if isinstance(error, dict) else None
        status = status if isinstance(status, int) else 500
        said = self._hidden(_said(events[0]))
        failure = RefusedError(
            f"the server at {self.url} refused {COMPLETIONS} ({status}: {said}); see what is "
            f"wrong: secateur engine check {self.url}",
            status,
            said,
        )
        raise _TryAgain(failure) if status in _BUSY else failure

    async def _retrying(self, ask: Callable[[float], Awaitable[_T]], limit: float) -> _T:
        """Ask, and ask again while nothing was read; generation has no effects but its tokens.

        All tries together have ``limit`` seconds; ``ask`` is told when they are over.
        """
        patience = self.patience
        now = asyncio.get_running_loop().time
        due = now() + limit
        for retry in range(patience.retries + 1):
            try:
                return await ask(due)
            except _TryAgain as again:
                failure, after = again.failure, again.after
                self.shaken = True
            except TimeoutError as error:
                raise self.lost(error, limit) from None  # it had its time
            except (aiohttp.ClientError, OSError) as error:
                failure, after = self.lost(error), None
            pause = patience.pause_s * 2**retry * (1 + self._random.random())
            if after is not None:
                pause = max(pause, after)
            late = pause > patience.longest_pause_s or now() + pause >= due
            if retry == patience.retries or late:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("the last round returns or raises")

    def _live(self) -> aiohttp.ClientSession:
        """The session of this event loop; one that another loop left behind is dropped."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"accept-encoding": "identity"}
            if self._authorization is not None:
                headers["authorization"] = self._authorization
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.connect_s),
                headers=headers,
                read_bufsize=2**20,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(self.url) if self._proxied else None,
            )
            self._loop = loop
        return self._session

    def _hidden(self, said: str) -> str:
        """What a server said, without the key or login that it may have sent back."""
        word = (self._authorization or "").partition(" ")[2]
        return redacted(said, word, *_unpacked(word))


def _authorization(url: str, key_variable: str) -> str | None:
    """The header that lets us in: a key, or a login; None where there is neither."""
    key = os.environ.get(key_variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise EngineError(f"{key_variable} has signs in it that no key can have; set it again")
    if key:
        return f"Bearer {key}"
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        found = netrc.netrc(str(file)).hosts.get(urlsplit(url).hostname or "")
    except (OSError, RuntimeError):
        return None
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:  # its words may be a password
        line = getattr(error, "lineno", None)
        where = f"line {line}" if line else "it"
        raise EngineError(f"{file}: {where} cannot be read as logins; correct it") from None
    if found is None:
        return None
    login, _, password = found
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def _unpacked(word: str) -> tuple[str, ...]:
    """The password of a login as it is sent."""
    try:
        return (base64.b64decode(word, validate=True).decode().partition(":")[2],)
    except ValueError:
        return ()


def _proxy(url: str) -> str | None:
    """The proxy that the surroundings name for an address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _said(raw: bytes) -> str:
    """The message of an error's JSON, or of what came instead, in one line."""
    try:
        found = orjson.loads(raw)
        found = found.get("error", found)
        found = found.get("message", found) if isinstance(found, dict) else found
    except (orjson.JSONDecodeError, AttributeError):
        found = None
    if not isinstance(found, str):
        found = raw[:_MOST_SAID].decode("utf-8", "replace")
    return " ".join(found.split())[:200] or "no reason given"


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
