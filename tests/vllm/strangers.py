"""Small HTTP servers that answer in the documented shapes of servers that are not vLLM."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

__all__ = ["llamacpp", "openai", "serving", "sglang"]

Answer = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def serving(answers: dict[str, Answer]) -> AsyncIterator[str]:
    """Serve ``path -> answer(body)`` as JSON on a free port; anything else is not found."""

    def handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(answer(await request.json() if request.can_read_body else {}))

        return handle

    app = web.Application()
    for path, answer in answers.items():
        app.router.add_route("*", path, handler(answer))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def sglang() -> dict[str, Answer]:
    """SGLang's completions know token ids and the likeliest tokens by text, but no named tokens."""
    card = {"id": "seedling", "object": "model", "created": 1, "owned_by": "sglang"}
    card |= {"root": "seedling", "parent": None, "max_model_len": 1024}

    def complete(body: dict[str, Any]) -> Any:
        logprobs = {
            "text_offset": [-1],
            "token_logprobs": [-0.4],
            "tokens": [" ok"],
            "top_logprobs": [{" ok": -0.4, " no": -1.2, "\n": -2.0}],
        }
        choice = {"index": 0, "text": " ok", "finish_reason": "length", "matched_stop": None}
        choice["logprobs"] = logprobs if body.get("logprobs") else None
        if body.get("return_token_ids"):
            choice["token_ids"] = [300] * body["max_tokens"]
        return {"id": "1", "object": "text_completion", "model": "seedling", "choices": [choice]}

    return {
        "/v1/models": lambda body: {"object": "list", "data": [card]},
        "/v1/completions": complete,
        "/tokenize": lambda body: {"tokens": [1, 2, 3], "count": 3, "max_model_len": 1024},
    }


def llamacpp() -> dict[str, Answer]:
    """llama.cpp's completions list the likeliest tokens, in the shape of the chat API."""
    card = {"id": "seedling", "object": "model", "created": 1, "owned_by": "llamacpp"}
    card["meta"] = {"vocab_type": 2, "n_vocab": 800, "n_ctx_train": 1024, "n_embd": 256}

    def complete(body: dict[str, Any]) -> Any:
        likely = {"id": 300, "token": " ok", "bytes": [32, 111, 107], "logprob": -0.4}
        content = [{**likely, "top_logprobs": [likely]}]
        choice = {"index": 0, "text": " ok", "finish_reason": "length"}
        choice["logprobs"] = {"content": content} if body.get("logprobs") else None
        return {"id": "1", "object": "text_completion", "choices": [choice]}

    return {
        "/v1/models": lambda body: {"object": "list", "data": [card]},
        "/v1/completions": complete,
        "/tokenize": lambda body: {"tokens": []},  # it reads "content", not "prompt"
    }


def openai() -> dict[str, Answer]:
    """The OpenAI API itself: no named tokens, no token ids, no scores of prompts, no /tokenize."""
    card = {"id": "seedling", "object": "model", "created": 1, "owned_by": "system"}

    def complete(body: dict[str, Any]) -> Any:
        logprobs = {
            "text_offset": [4],
            "token_logprobs": [-0.4],
            "tokens": [" ok"],
            "top_logprobs": [{" ok": -0.4}],
        }
        choice = {"index": 0, "text": " ok", "finish_reason": "length"}
        choice["logprobs"] = logprobs if body.get("logprobs") else None
        return {"id": "1", "object": "text_completion", "choices": [choice]}

    return {
        "/v1/models": lambda body: {"object": "list", "data": [card]},
        "/v1/completions": complete,
    }
