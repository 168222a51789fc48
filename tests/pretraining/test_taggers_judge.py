"""A judge over the wire, and everything that can be wrong with its answer.

The server here is a real HTTP server on this machine that speaks the chat completions wire; what
answers is a rule of the test, not a language model. It tests the wire, the checks and the
failing closed, and says nothing of how well any model judges.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from secateur.pretraining.corpus.document import Span
from secateur.pretraining.taggers.judge import JudgeTagger
from secateur.pretraining.taggers.tagger import Untagged, UntaggedError

Rule = Callable[[dict[str, Any], int], Any]
"""From the request and its number to a reply: a status, or the content of the answer."""


class Server:
    """Answers chat completions by a rule, and keeps what it was asked."""

    def __init__(self) -> None:
        self.rule: Rule = honest
        self.asked: list[dict[str, Any]] = []
        self.finish = "stop"
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request["key"] = self.headers["Authorization"]
                with outer._lock:
                    outer.asked.append(request)
                    number = len(outer.asked)
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                answer = outer.rule(request, number)
                with outer._lock:
                    outer.at_once -= 1
                status = answer if isinstance(answer, int) else 200
                message = {"role": "assistant", "content": answer}
                choice = {"index": 0, "message": message, "finish_reason": outer.finish}
                body = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": "rule",
                    "choices": [choice] if status == 200 else [],
                }  # fmt: skip
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("retry-after-ms", "5")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def units(request: dict[str, Any]) -> list[dict[str, Any]]:
    return json.loads(request["messages"][1]["content"])["units"]


def honest(request: dict[str, Any], number: int) -> str:
    """Every unit with ``fool`` in it is rude."""
    labels = [
        {"unit": unit["unit"], "label": "rude" if "fool" in unit["text"] else "none"}
        for unit in units(request)
    ]
    return json.dumps({"units": labels})


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def judge(server: Server, **settings: object) -> JudgeTagger:
    return JudgeTagger.model_validate(
        {
            "url": server.url, "model": "rule", "labels": {"rude": "an insult"}, "retries": 1,
            **settings,
        }
    )  # fmt: skip


def test_its_labels_become_spans(server: Server) -> None:
    text = "good day\n\n  you fool 🌱\nbye, fool\n"
    [spans] = judge(server).tag([text])
    assert spans == (Span(12, 22, "rude"), Span(23, 32, "rude"))
    assert text[12:22] == "you fool 🌱"
    assert judge(server).tag(["", "\n"]) == [(), ()]
    assert len(server.asked) == 1


def test_it_is_told_the_labels_and_that_use_and_mention_differ(server: Server) -> None:
    judge(server).tag(["you fool"])
    system = server.asked[0]["messages"][0]["content"]
    assert "rude: an insult" in system
    assert "Use and mention differ" in system
    schema = server.asked[0]["response_format"]["json_schema"]
    assert schema["strict"] is True
    items = schema["schema"]["properties"]["units"]["items"]
    assert items["properties"]["label"]["enum"] == ["rude", "none"]
    judge(server, mention_rule="Quotes are fine.").tag(["you fool"])
    assert "Quotes are fine." in server.asked[1]["messages"][0]["content"]


def test_a_long_text_is_asked_in_parts_with_what_stands_before(server: Server) -> None:
    text = "".join(f"line {n}{' fool' * (n == 7)}\n" for n in range(10))
    [[span]] = judge(server, units=4, before=2, concurrency=1).tag([text])
    assert text[span.start : span.end] == "line 7 fool"
    sheets = [json.loads(request["messages"][1]["content"]) for request in server.asked]
    assert sorted(len(sheet["units"]) for sheet in sheets) == [2, 4, 4]
    [middle] = [sheet for sheet in sheets if sheet["units"][0]["text"] == "line 4"]
    assert middle["before"] == ["line 2", "line 3"]


def test_no_more_requests_are_under_way_than_allowed(server: Server) -> None:
    meet = threading.Event()
    server.rule = lambda request, number: (meet.wait(0.05), honest(request, number))[1]
    assert len(judge(server, concurrency=3).tag(["you fool"] * 12)) == 12
    assert server.most_at_once == 3


def test_bands_are_asked_for_and_read(server: Server) -> None:
    def rule(request: dict[str, Any], number: int) -> str:
        return json.dumps({"units": [{"unit": 1, "label": "rude", "band": 3}]})

    server.rule = rule
    assert judge(server, bands=3).tag(["you fool"]) == [(Span(0, 8, "rude", 3),)]
    [outcome] = judge(server, bands=2).attempt(["you fool"])
    assert isinstance(outcome, Untagged)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("I would say it is fine.", "not the JSON"),
        ("", "not the JSON"),
        (None, "not the JSON"),
        ('{"units": []}', "labels 0 units"),
        ('{"units": [{"unit": 1, "label": "none"}]}', "labels 1 units"),
        ('{"units": [{"unit": 2, "label": "none"}, {"unit": 1, "label": "none"}]}', "each once"),
        ('{"units": [{"unit": 1, "label": "ok"}, {"unit": 2, "label": "none"}]}', "unknown label"),
        ('{"units": [{"unit": 1, "label": null}, {"unit": 2, "label": "none"}]}', "not the JSON"),
    ],
)
def test_an_unreadable_answer_is_asked_again_and_never_clean(
    content: str | None, said: str, server: Server
) -> None:
    server.rule = lambda request, number: content
    [outcome] = judge(server, retries=2).attempt(["one\ntwo\n"])
    assert isinstance(outcome, Untagged)
    assert said in outcome.reason
    assert len(server.asked) == 3
    with pytest.raises(UntaggedError, match="1 of 1 texts"):
        judge(server, retries=0).tag(["one\ntwo\n"])


def test_a_cut_answer_is_never_clean(server: Server) -> None:
    server.finish = "length"
    [outcome] = judge(server).attempt(["a"])
    assert isinstance(outcome, Untagged)
    assert "cut off" in outcome.reason


def test_one_bad_answer_spoils_its_text_alone(server: Server) -> None:
    def rule(request: dict[str, Any], number: int) -> str:
        return "?" if "odd" in request["messages"][1]["content"] else honest(request, number)

    server.rule = rule
    fine, odd, rude = judge(server).attempt(["fine", "odd", "you fool"])
    assert (fine, rude) == ((), (Span(0, 8, "rude"),))
    assert isinstance(odd, Untagged)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.rule = lambda request, number: 429 if number < 3 else honest(request, number)
    assert judge(server, retries=3).tag(["you fool"]) == [(Span(0, 8, "rude"),)]
    assert len(server.asked) == 3


def test_a_server_that_fails_or_is_gone_is_never_clean(server: Server) -> None:
    server.rule = lambda request, number: 500
    [failed] = judge(server, retries=0).attempt(["a"])
    gone = judge(server, retries=0)
    server.stop()
    [absent] = gone.attempt(["a"])
    for outcome in (failed, absent):
        assert isinstance(outcome, Untagged)
        assert "did not answer" in outcome.reason
    server.stop = lambda: None  # stopped already


async def test_it_can_be_asked_from_within_an_event_loop(server: Server) -> None:
    assert asyncio.get_running_loop().is_running()
    assert judge(server).tag(["you fool"]) == [(Span(0, 8, "rude"),)]


def test_the_key_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge(server, key_variable="JUDGE_KEY").tag(["a"])
    assert server.asked[0]["key"] == "Bearer secret"
    assert "secret" not in judge(server, key_variable="JUDGE_KEY").model_dump_json()


def test_none_is_no_name_for_a_tag(server: Server) -> None:
    with pytest.raises(ValueError, match="no tag at all"):
        judge(server, labels={"none": "x"})
