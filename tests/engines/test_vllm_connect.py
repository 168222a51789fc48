"""What keeps an engine from connecting is said in one line, before anything is asked."""

import json
import socket
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.wire import Patience

IMPATIENT = Patience(pause_s=0.01)


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{trial.getsockname()[1]}"


def refusal(url: str, model: Path, **options: object) -> str:
    with pytest.raises(EngineError) as raised:
        VLLMEngine.connect(url, model, patience=IMPATIENT, **options)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nobody_there_says_how_to_start_a_server(nobody: str, tiny_checkpoint: Path):
    said = refusal(nobody, tiny_checkpoint)
    assert f"no server answers at {nobody} (connection refused)" in said
    assert "secateur engine serve" in said


def test_more_tags_than_a_server_reads_are_refused_with_the_limit(
    nobody: str, tiny_checkpoint: Path, tmp_path: Path
):
    tags = [{"name": f"t{i}", "open": f"<|t{i}|>", "close": f"<|/t{i}|>"} for i in range(129)]
    (tmp_path / "vocabulary.json").write_text(json.dumps({"name": "many", "tags": tags}))
    tokenizer = Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    tokenizer.add_special_tokens([tag[end] for tag in tags for end in ("open", "close")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    said = refusal(nobody, tmp_path)
    assert "'many' has 129 tag tokens" in said
    assert "at most 128" in said


def test_a_chat_that_has_no_template_is_refused(nobody: str, tiny_checkpoint: Path):
    assert "no chat template" in refusal(nobody, tiny_checkpoint, chat=True)


@pytest.mark.parametrize("url", ["http://", "http://host:80/?x=1", "ftp://host"])
def test_what_is_no_address_is_refused(url: str, tiny_checkpoint: Path):
    assert "give http://HOST:PORT" in refusal(url, tiny_checkpoint)


def test_an_engine_of_another_kind_is_unknown():
    with pytest.raises(EngineError, match="'remote' is unknown: give 'local'"):
        open_engine("remote", "seedling")
