"""A small real proxy before a real server: it passes everything on, and spoils what it is told."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

__all__ = ["Proxy"]

COMPLETIONS = "/v1/completions"
Event = dict[str, Any]


class Proxy:
    """An HTTP proxy on a port of its own; use it as an async context manager.

    What it spoils is set on it between requests. All of it is about streams, but for ``answers``.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.refusals: list[int] = []
        """Statuses that the next streams get instead of an answer."""
        self.spoil: Callable[[int, Event], Event] | None = None
        """Changes the nth event of a stream."""
        self.cut_after: int | None = None
        """Events of a stream before the connection breaks in the middle of the next."""
        self.end_after: int | None = None
        """Events of a stream before it ends as if all were well."""
        self.stall_after: int | None = None
        """Events of a stream before nothing more comes."""
        self.answers: dict[str, Callable[[Any], Any]] = {}
        """Changes the JSON that a path answers."""
        self.asked: list[Event] = []
        """The streams that were asked for, in order, refused ones included."""

    @property
    def url(self) -> str:
        """Where the proxy answers."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        headers = {"content-type": request.content_type}
        asked = json.loads(content) if request.path == COMPLETIONS else {}
        if asked.get("stream"):
            self.asked.append(asked)
            if self.refusals:
                status = self.refusals.pop(0)
                said = {"error": {"message": "busy", "code": status}}
                return web.json_response(said, status=status, headers={"retry-after": "0"})
        async with self._session.request(
            request.method, self.upstream + request.path_qs, data=content, headers=headers
        ) as answer:
            if answer.content_type == "text/event-stream":
                response = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):  # whoever asked closed the stream
                    await self._stream(request, response, answer)
                return response
            body = await answer.read()
            change = self.answers.get(request.path)
            if change is not None and answer.status == 200:
                body = json.dumps(change(json.loads(body))).encode()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    async def _stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        answer: aiohttp.ClientResponse,
    ) -> None:
        count = 0
        async for line in answer.content:
            if line.startswith(b"data: {"):
                if count == self.end_after:
                    break
                if count == self.stall_after:
                    await asyncio.Event().wait()  # until whoever asked goes away
                if count == self.cut_after:
                    await response.write(line[: len(line) // 2])
                    assert request.transport is not None
                    request.transport.abort()
                    return
                if self.spoil is not None:
                    changed = self.spoil(count, json.loads(line[len(b"data: ") :]))
                    line = b"data: " + json.dumps(changed).encode() + b"\n"
                count += 1
            await response.write(line)
        await response.write_eof()
