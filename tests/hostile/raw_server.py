"""A model server that speaks raw HTTP over a real socket, so that it can say what none should."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

__all__ = [
    "HEAD", "STREAM", "Answer", "RawServer", "Send", "event", "for_ever", "serving", "silence",
    "whole",
]  # fmt: skip

Send = Callable[[bytes], Awaitable[None]]
Answer = Callable[[dict[str, Any], Send], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def whole(body: Any, head: bytes = HEAD) -> Answer:
    """An answer of one piece: JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(asked: dict[str, Any], send: Send) -> None:
        await send(head + b"content-length: %d\r\n\r\n" % len(raw) + raw)

    return answer


def for_ever(start: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    """An answer that never ends."""

    async def answer(asked: dict[str, Any], send: Send) -> None:
        await send(start)
        while True:
            await send(piece)
            await asyncio.sleep(pause)

    return answer


async def silence(asked: dict[str, Any], send: Send) -> None:
    """Takes the question, and never answers."""
    await asyncio.Event().wait()


class RawServer:
    """Answers as the tiny checkpoint's server would, but for what a test sets in ``answers``."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.name = folder.name
        self.scores: Callable[[list[int]], Sequence[float]] = lambda ids: [-1.0] * (len(ids) - 1)
        """log p of a text's tokens but the first; by default, made up."""
        self.answers: dict[str, Answer] = {}
        """What else to say: by path, with `` stream`` behind it for a stream."""
        self.asked: list[str] = []
        self.authorizations: list[str] = []

    def token(self, id_: int, finish: str | None = None, **changes: Any) -> dict[str, Any]:
        """One event of a stream."""
        top = {f"token_id:{column}": -4.0 for column in (3, 4, 5, 6, 7, 8)}
        logprobs = {
            "token_logprobs": [-1.0],
            "tokens": [f"token_id:{id_}"],
            "top_logprobs": [top | {f"token_id:{id_}": -1.0}],
        }
        choice = {"index": 0, "text": "x", "token_ids": [id_], "logprobs": logprobs}
        choice |= {"finish_reason": finish} | changes
        return {"id": "1", "object": "text_completion", "model": self.name, "choices": [choice]}

    async def honest(self, path: str, asked: dict[str, Any], send: Send) -> None:
        """What a server says that behaves."""
        if path == "/v1/models":
            card = {"id": self.name, "root": self.name, "max_model_len": 256, "owned_by": "vllm"}
            reply: Any = {"object": "list", "data": [card]}
        elif path == "/version":
            reply = {"version": "0"}
        elif path == "/tokenize":
            reply = {"tokens": self.tokenizer.encode(asked["prompt"], add_special_tokens=False).ids}
        elif asked.get("stream"):
            count = asked["max_tokens"]
            events = [
                self.token(20 + n, "length" if n == count - 1 else None) for n in range(count)
            ]
            await send(STREAM + b"".join(map(event, events)) + b"data: [DONE]\n\n")
            return
        elif "prompt_logprobs" in asked:
            rows = [
                [
                    None,
                    *(
                        {str(id_): {"logprob": log}}
                        for id_, log in zip(prompt[1:], self.scores(prompt), strict=True)
                    ),
                ]
                for prompt in batch(asked["prompt"])
            ]
            choices = [{"index": n, "prompt_logprobs": row} for n, row in enumerate(rows)]
            reply = {"model": self.name, "choices": choices}
        else:
            (plain,) = self.token(20, "length")["choices"]
            choices = [plain | {"index": n} for n, _ in enumerate(batch(asked["prompt"]))]
            reply = {"model": self.name, "choices": choices}
        await whole(reply)(asked, send)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                length = [
                    line for line in head.lower().split(b"\r\n") if b"content-length:" in line
                ]
                size = int(length[0].split(b":")[1]) if length else 0
                asked = json.loads(await reader.readexactly(size) or b"{}")
                self.asked.append(path)
                for line in head.decode().split("\r\n"):
                    if line.lower().startswith("authorization: "):
                        self.authorizations.append(line[15:])
                answer = self.answers.get(f"{path} stream" if asked.get("stream") else path)
                if answer is None:
                    await self.honest(path, asked, send)
                else:
                    await answer(asked, send)
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def batch(prompt: list[Any]) -> list[list[int]]:
    return prompt if isinstance(prompt[0], list) else [prompt]


def event(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@asynccontextmanager
async def serving(server: RawServer) -> AsyncIterator[str]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 24)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
