"""Logs are structured lines that say which run and which thought they speak of."""

import json
import logging
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from secateur import Agent, LocalEngine, Sampling, generate
from secateur.runtime.logs import get_logger


async def test_every_step_of_a_run_is_logged_with_run_and_thought(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="secateur")
    engine = LocalEngine.load(tiny_checkpoint)
    agent = Agent("try", generate("{task}\n", n=2), sampling=Sampling(max_tokens=4))
    result = await agent.run("x", policy="observe", engine=engine, ledger=tmp_path / "x.db")
    await engine.aclose()
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name.startswith("secateur")]
    assert {line["run"] for line in lines} == {result.run_id}
    assert {line["thought"] for line in lines if "thought" in line} == {
        thought.id for thought in result.thoughts
    }
    assert [lines[0]["event"], lines[-1]["event"]] == ["run started", "run ended"]


def test_nothing_below_a_warning_is_written_unless_asked_for(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, logger="secateur")
    with bound_contextvars(run="r"):
        get_logger("secateur.test").info("quiet")
        get_logger("secateur.test").warning("loud")
    (line,) = [json.loads(record.getMessage()) for record in caplog.records]
    assert (line["event"], line["level"], line["run"]) == ("loud", "warning", "r")
