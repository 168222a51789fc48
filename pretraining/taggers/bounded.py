"""An HTTP client for servers that may never end an answer: time, size and place are bounded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2

__all__ = ["BoundedClient"]

_MOST = 4 << 20
"""Bytes of one answer."""


class BoundedClient(httpx2.AsyncClient):
    """Reads an answer whole, within so many seconds and 4 MiB; follows no redirect, unpacks
    nothing. Raises ``httpx2.HTTPError`` for any other."""

    def __init__(self, seconds: float) -> None:
        super().__init__(headers={"accept-encoding": "identity"}, follow_redirects=False)
        self._seconds = seconds

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """As httpx2 does, but for the bounds."""
        options["follow_redirects"] = False
        try:
            async with asyncio.timeout(self._seconds):
                answer = await super().send(request, stream=True, **options)
                try:
                    if answer.headers.get("content-encoding", "identity") != "identity":
                        raise httpx2.DecodingError("the answer is packed", request=request)
                    if answer.is_redirect:
                        raise httpx2.RemoteProtocolError("redirects elsewhere", request=request)
                    assert isinstance(answer.stream, httpx2.AsyncByteStream)
                    answer.stream = _Bounded(answer.stream)
                    await answer.aread()
                finally:
                    await answer.aclose()
        except TimeoutError:
            said = f"no whole answer within {self._seconds:g} s"
            raise httpx2.ReadTimeout(said, request=request) from None
        return answer


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._inner:
            size += len(data)
            if size > _MOST:
                raise httpx2.RemoteProtocolError(f"the answer has more than {_MOST >> 20} MiB")
            yield data

    async def aclose(self) -> None:
        await self._inner.aclose()
