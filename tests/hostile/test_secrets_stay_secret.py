"""A password or a key that somebody gave is in no ledger, no log, no message and no output."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import Agent, AuditLog, Ledger, LocalEngine, Sampling
from secateur.agents.plans.words import generate
from secateur.gates.errors import SecateurError
from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.wire import Patience
from secateur.runtime.ledger import connect
from secateur.runtime.redaction import redacted, shown_url
from secateur.tests.hostile.raw_server import Answer, RawServer, Send, serving, whole

SECRET = "hush4Puppies"
KEY = "keyOfTheServer77"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"http://me:{SECRET}@host:80/v1", "http://***@host:80/v1"),
        (f"https://{SECRET}@host/v1", "https://***@host/v1"),
        (f"http://host:80/v1?api_key={SECRET}&a=b", "http://host:80/v1?api_key=***&a=***"),
        (f"http://host/v1#token={SECRET}", "http://host/v1"),
        (f"postgresql://me:{SECRET}@host/db", "postgresql://me:***@host/db"),
        (
            f"postgresql://me@host/db?sslmode=require&password={SECRET}",
            "postgresql://me@host/db?sslmode=require&password=***",
        ),
        (f"postgresql://h/d?p%61ssword={SECRET}", "postgresql://h/d?p%61ssword=***"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("postgresql://me@/db?host=/tmp/run", "postgresql://me@/db?host=/tmp/run"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("secateur.db", "secateur.db"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert redacted(f"see {url}; then {url}.") == f"see {shown}; then {shown}."


odd = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), max_size=6)
schemes = st.sampled_from(["http", "https", "postgresql", "postgresql+psycopg", "ftp"])


@given(schemes, odd, odd, st.sampled_from([":", ""]))
def test_no_spelling_of_a_password_is_shown(
    scheme: str, before: str, after: str, user: str
) -> None:
    url = f"{scheme}://u{user}{before}{SECRET}{after}@host/db"
    if user or scheme.startswith("http"):
        assert SECRET not in shown_url(url)
        assert SECRET not in redacted(f"the server at {url} is gone; see its log")


@given(schemes, odd, st.text("abcdefghij_", min_size=1, max_size=9), odd)
def test_no_parameter_of_an_address_is_shown(
    scheme: str, before: str, name: str, after: str
) -> None:
    url = f"{scheme}://host/db?a={before}&{name}={SECRET}{after}"
    if name not in ("host", "mode", "port"):
        assert SECRET not in shown_url(url)
        assert SECRET not in redacted(url)


@pytest.mark.parametrize(
    "text",
    [
        f"invalid dsn: password={SECRET} host=h",
        f"sslpassword = '{SECRET}'",
        f"{{'api_key': ['{SECRET}']}}",
        f'{{"api_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"vllm serve --api-key {SECRET} --port 1",
        f"vllm serve --api-key={SECRET}",
        f"PGPASSWORD={SECRET} psql",
        f"http://me:pass {SECRET}@host refused",
        f"engine 'me:{SECRET}@host:80' is unknown",
        "Incorrect API key provided: sk-hush4Puppieshush4Puppies",
    ],
)
def test_what_a_driver_or_a_server_says_is_shown_without_what_is_secret(text: str) -> None:
    assert "Puppies" not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the server at http://127.0.0.1:8000 sent no token for 10 s; see its log",
        'connection to server at "h", port 5432 failed: password authentication failed for user',
        "set VLLM_API_KEY to the server's key, or write its login to ~/.netrc",
        "drew token 300, none of the model's 300",
        "give 'local', or the address of a server (http://HOST:PORT)",
        "write it as %40, or leave the password to ~/.pgpass or PGPASSWORD",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_the_value_of_a_secret_variable_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    assert redacted(f"unauthorised: {SECRET}") == "unauthorised: ***"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:{SECRET[:4]}@{SECRET[4:]}@127.0.0.1:1/db",
        f"postgresql://me@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://me@127.0.0.1:1/db?sslpassword={SECRET}",
        f"postgresql://me@127.0.0.1:1/db?pasword={SECRET}",
        f"postgresql://me:{SECRET}@127.0.0.1:port/db",
        f"postgresql+nosuch://me:{SECRET}@127.0.0.1/db",
        f"mysql://me:{SECRET}@127.0.0.1/db?password={SECRET}",
        f"sqlite://me:{SECRET}@127.0.0.1/no.db",
        f"postgresql://me:{SECRET}@[127.0.0.1/db",
    ],
)
def test_no_error_of_a_ledger_names_its_password(url: str) -> None:
    with pytest.raises(SecateurError) as caught:
        connect.open_existing(url)
    whole_trace = "".join(traceback.format_exception(caught.value))
    for part in (SECRET, SECRET[4:]):
        assert part not in str(caught.value)
        assert part not in redacted(whole_trace)


# Whole commands


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    (tmp_path / "tasks.jsonl").write_text('{"task": "sort 3 1 2"}\n')
    return tmp_path


COMMANDS: list[Sequence[str]] = [
    ("run", "sort", "3 1 2", "--engine", f"http://me:{SECRET}@127.0.0.1:1"),
    ("run", "sort", "3 1 2", "--engine", f"http://{SECRET}@127.0.0.1:1/v1"),
    ("run", "sort", "3 1 2", "--engine", f"http://127.0.0.1:1/?api_key={SECRET}"),
    ("run", "sort", "3 1 2", "--engine", f"grpc://me:{SECRET}@127.0.0.1:1"),
    ("run", "sort", "3 1 2", "--engine", f"me:{SECRET}@127.0.0.1:1"),
    ("run", "sort", "--tasks", "tasks.jsonl", "--engine", f"http://me:{SECRET}@h", "--json"),
    ("run", "sort", "3 1 2", "--model", f"https://me:{SECRET}@hub/model"),
    ("run", "sort", "3 1 2", "--policy", f"https://me:{SECRET}@host/policy.yaml"),
    ("run", "sort", "3 1 2", "--db", f"postgresql://me:{SECRET}@127.0.0.1:1/db"),
    ("run", f"https://me:{SECRET}@host/agent.py:a", "x"),
    ("-v", "run", "sort", "3 1 2", "--db", f"postgresql://me@127.0.0.1:1/d?password={SECRET}"),
    ("run", "--resume", "abc", "--db", f"postgresql://me:{SECRET}@127.0.0.1:1/db"),
    ("engine", "check", f"http://me:{SECRET}@127.0.0.1:1"),
    ("engine", "check", f"http://127.0.0.1:1?key={SECRET}", "--json"),
    ("engine", "check", "http://127.0.0.1:1", "--json"),
    ("engine", "serve", "seedling", "--print", "--", "--api-key", SECRET),
    ("engine", "serve", "seedling", "--print", "--", f"--api_key={SECRET}", "--port", "1"),
    ("audit", "runs", "--db", f"postgresql://me:{SECRET}@127.0.0.1:1/db?connect_timeout=2"),
    ("audit", "verify", "--db", f"postgresql://me@127.0.0.1:1/db?sslpassword={SECRET}", "--json"),
    ("audit", "sql", "SELECT 1", "--db", f"mysql://me:{SECRET}@127.0.0.1/db"),
    ("db", "current", "--db", f"postgresql://me:{SECRET}@127.0.0.1:port/db"),
    ("db", "upgrade", "--db", f"postgresql+nosuch://me:{SECRET}@127.0.0.1/db", "--json"),
]


@pytest.fixture(scope="module")
def surroundings() -> Mapping[str, str]:
    python = os.environ.get("SECATEUR_VLLM_PYTHON", sys.executable)
    return {**os.environ, "PYTHONWARNINGS": "ignore", "SECATEUR_VLLM_PYTHON": python}


def said(words: Sequence[str], place: Path, surroundings: Mapping[str, str], **more: str) -> str:
    """All that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "secateur", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=place,
        env={**surroundings, **more},
    )
    return done.stdout + done.stderr


def lying_about(place: Path) -> Iterator[bytes]:
    """Every byte that lies in a folder, but for what the test laid there itself."""
    for path in place.rglob("*"):
        if path.is_file() and path.name not in ("netrc", "secateur.toml"):
            yield path.read_bytes()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words).replace(SECRET, "S"))
def test_no_command_prints_or_keeps_a_secret(
    words: Sequence[str],
    home: Path,
    secateur: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    _, out, err = secateur(*words)
    assert out + err
    assert SECRET not in out + err
    assert all(SECRET.encode() not in content for content in lying_about(home))


@pytest.mark.parametrize("line", [
    f'engine = "http://me:{SECRET}@127.0.0.1:1"',
    f'engine = "me:{SECRET}@127.0.0.1:1"',
    f'db = "postgresql://me:{SECRET}@127.0.0.1:1/db"',
    f'"postgresql://me:{SECRET}@127.0.0.1:1/db" = 1',
    f'db = postgresql://me:{SECRET}@127.0.0.1:1/db',
    f'api_key = "{SECRET}"',
])  # fmt: skip
def test_no_word_of_the_settings_is_printed_that_is_secret(
    line: str,
    home: Path,
    secateur: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(home)
    (home / "secateur.toml").write_text(line)
    code, out, err = secateur("run", "sort", "3 1 2")
    assert code == 1
    assert SECRET not in out + err


async def test_a_run_behind_a_login_keeps_it_out_of_the_ledger(
    tiny_checkpoint: Path, home: Path, surroundings: Mapping[str, str]
) -> None:
    """The server sends back what it was sent, in every way that it can."""
    folder = home / "tiny"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        (folder / name).write_bytes((tiny_checkpoint / name).read_bytes())
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    server = RawServer(folder)

    def echo(status: int) -> Answer:
        async def answer(asked: dict[str, Any], send: Send) -> None:
            kind, _, word = server.authorizations[-1].partition(" ")
            sent = [word, *([base64.b64decode(word).decode()] if kind == "Basic" else [])]
            said = json.dumps({"error": {"message": f"you sent {sent}"}}).encode()
            await whole(said, b"HTTP/1.1 %d No\r\n" % status)(asked, send)

        return answer

    agent = (
        "from secateur import Agent, Sampling\nfrom secateur.agents.plans.words import generate\n"
    )
    agent += "a = Agent('a', generate('say {task}', n=2), sampling=Sampling(1.0, 1.0, 4))\n"
    (home / "agent.py").write_text(agent)
    async with serving(server) as url:
        words = ("-v", "run", "agent.py:a", "x", "--engine", url, "--model", "tiny")
        words = (*words, "--policy", "observe", "--db", "l.db")
        login = {"NETRC": str(home / "netrc")}
        printed = await asyncio.to_thread(said, words, home, surroundings, **login)
        assert set(server.authorizations) == {f"Basic {basic}"}
        for status in (400, 401):
            server.answers["/v1/completions stream"] = echo(status)
            printed += await asyncio.to_thread(said, words, home, surroundings, **login)
            printed += await asyncio.to_thread(
                said, words, home, surroundings, VLLM_API_KEY=KEY, **login
            )
        assert f"Bearer {KEY}" in server.authorizations
        server.answers["/v1/completions stream"] = echo(200)
        printed += await asyncio.to_thread(said, words, home, surroundings, **login)
        run = json.loads(said(("audit", "runs", "--db", "l.db", "--json"), home, surroundings))
        assert len(run) == 6
        for each in run:
            printed += said(("audit", "show", each["run"], "--db", "l.db"), home, surroundings)
    kept = b"".join(lying_about(home))
    assert url.encode() in kept
    for secret in (SECRET, KEY, basic):
        assert secret not in printed
        assert secret.encode() not in kept


async def test_what_python_says_of_a_runs_origin_is_kept_without_its_login(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    agent = Agent("a", generate("say {task}"), sampling=Sampling(1.0, 1.0, 4))
    engine = LocalEngine.load(tiny_checkpoint, device="cpu")
    async with Ledger.open(tmp_path / "l.db") as ledger:
        made = await agent.run(
            "x", engine=engine, ledger=ledger, policy="observe",
            origin={"engine": f"http://me:{SECRET}@host:80"},
        )  # fmt: skip
    await engine.aclose()
    with AuditLog(tmp_path / "l.db") as audit:
        body = next(iter(audit.events(made.run_id))).body
    assert body["options"]["origin"] == {"engine": "http://***@host:80"}
    assert all(SECRET.encode() not in content for content in lying_about(tmp_path))


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@host", f"{SECRET}@host", f"m:{SECRET}@h:1"])
def test_an_address_with_a_login_is_refused_with_what_to_do(
    url: str, tiny_checkpoint: Path
) -> None:
    with pytest.raises(EngineError, match=r"leave it out, and set VLLM_API_KEY .*netrc"):
        VLLMEngine.connect(url, tiny_checkpoint, patience=Patience(retries=0))


@pytest.mark.parametrize("content", [f"machine h login me password {SECRET} {SECRET}", f"{SECRET}"])
def test_a_netrc_that_cannot_be_read_is_named_and_not_quoted(
    content: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(content)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(EngineError, match="cannot be read as logins") as caught:
        VLLMEngine.connect("http://127.0.0.1:1", tiny_checkpoint)
    assert SECRET not in str(caught.value)


def test_a_judge_with_a_login_in_its_address_is_refused_without_quoting_it() -> None:
    from pydantic import ValidationError

    from secateur.pretraining.taggers.judge import JudgeTagger

    given: dict[str, Any] = {"model": "m", "labels": {"rude": "an insult"}}
    with pytest.raises(ValidationError, match="login") as caught:
        JudgeTagger(url=f"http://me:{SECRET}@host/v1", **given)
    assert SECRET not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["a", "a.", "a+", "-", "x:y ", "http://a:b c ", "password ", "a@", ":", "'", "sk-"]
)
def test_a_long_text_is_looked_through_in_one_pass(piece: str):
    """A tool that raises a megabyte of it holds no run up."""
    text = piece * (1_000_000 // len(piece))
    assert len(redacted(text)) > 0
    assert "hush" not in redacted(f"{text} http://me:hush@host/ {text}"[-1_100_000:])
