"""``secateur engine check``: a server that is fit, and those that are not, each with its reason."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.vllm.serving.launch import LaunchPlan
from secateur.runtime.engines.vllm.serving.preflight import Report, check_server
from secateur.runtime.engines.vllm.serving.server import VllmServer
from secateur.tests.vllm import strangers
from secateur.tests.vllm.proxy import Proxy


def failures(report: Report) -> dict[str, str]:
    """What failed, without what was therefore not looked at."""
    return {
        check.name: f"{check.detail}; {check.remedy}"
        for check in report.checks
        if not check.ok and check.remedy is not None
    }


def secateur(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secateur", *words], capture_output=True, text=True, timeout=300
    )


def test_our_own_server_is_fit(vllm_server: VllmServer) -> None:
    done = secateur("engine", "check", vllm_server.url, "--model", "seedling", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert all(check["ok"] for check in report["checks"])
    assert {check["name"] for check in report["checks"]} >= {
        "version",
        "model",
        "tokenizer",
        "tags",
        "temptations",
        "raw_logprobs",
        "controls",
        "score",
        "seeds",
        "weights",
        "prefix_cache",
        "aborts",
        "latency",
    }
    assert all(set(check) >= {"name", "ok", "detail", "remedy"} for check in report["checks"])


async def test_an_address_may_lack_its_scheme_and_name_the_api(vllm_server: VllmServer) -> None:
    report = await check_server(f"127.0.0.1:{vllm_server.plan.port}/v1/", "seedling")
    assert report.url == vllm_server.url
    assert report.ok


async def test_another_models_folder_is_told_apart(
    vllm_server: VllmServer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "seedling")
    report = await check_server(vllm_server.url, folder)
    assert not report.ok
    assert "not the one of" in failures(report)["tokenizer"]


async def test_other_weights_behind_the_same_tokenizer_are_told_apart(
    vllm_server: VllmServer, model_folder: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_folder, tmp_path / "seedling")
    weights = load_file(model_folder / "model.safetensors")
    torch.manual_seed(0)
    changed = {name: w + 0.2 * w.std() * torch.randn_like(w) for name, w in weights.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    report = await check_server(vllm_server.url, folder)
    assert set(failures(report)) == {"weights"}
    assert "other weights" in failures(report)["weights"]


@pytest.fixture(scope="module")
def careless(
    launch: Callable[..., LaunchPlan], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A real server in the wrong logprobs mode, without its prefix cache."""
    plan = launch("--logprobs-mode", "processed_logprobs", "--no-enable-prefix-caching")
    log = tmp_path_factory.mktemp("careless") / "server.log"
    with VllmServer.start(plan, log=log) as server:
        server.wait_ready(timeout_s=900)
        yield server


async def test_log_probabilities_taken_after_the_ban_are_refused(careless: VllmServer) -> None:
    found = failures(await check_server(careless.url, "seedling"))
    assert "a banned tag cannot be seen" in found["raw_logprobs"]
    assert "--logprobs-mode raw_logprobs" in found["raw_logprobs"]
    assert "--enable-prefix-caching" in found["prefix_cache"]
    # On a busy machine a stream may have come to its end before it is closed.
    assert set(found) - {"aborts"} == {"raw_logprobs", "prefix_cache"}


async def test_a_log_probability_that_is_no_number_is_refused(vllm_server: VllmServer) -> None:
    def spoil(said: dict[str, Any]) -> dict[str, Any]:
        for choice in said["choices"]:
            for top in (choice["logprobs"] or {}).get("top_logprobs", ()):
                top["token_id:3"] = math.nan
        return said

    async with Proxy(vllm_server.url) as proxy:
        proxy.answers["/v1/completions"] = spoil
        found = failures(await check_server(proxy.url, "seedling"))
    assert "not a finite number" in found["temptations"]


async def test_a_tag_of_two_tokens_is_refused_by_name(vllm_server: VllmServer) -> None:
    async with Proxy(vllm_server.url) as proxy:
        proxy.answers["/tokenize"] = lambda said: (
            said
            | {
                "tokens": [
                    new for id_ in said["tokens"] for new in ([40, 41] if id_ == 5 else [id_])
                ]
            }
        )
        found = failures(await check_server(proxy.url, "seedling"))
    assert found["tags"].startswith("<|powerseeking|> is [40, 41] on the server")


async def test_a_server_that_serves_something_else_is_refused(vllm_server: VllmServer) -> None:
    def others(said: dict[str, Any]) -> dict[str, Any]:
        card = said["data"][0]
        return said | {"data": [card | {"id": name, "root": name} for name in ("llama", "qwen")]}

    async with Proxy(vllm_server.url) as proxy:
        proxy.answers["/v1/models"] = others
        found = failures(await check_server(proxy.url, "seedling"))
    assert list(found) == ["model"]
    assert "llama, qwen" in found["model"]


@pytest.mark.parametrize("stranger", ["sglang", "llamacpp", "openai"])
async def test_servers_that_cannot_read_named_tokens_are_refused_with_what_they_lack(
    stranger: str,
) -> None:
    async with strangers.serving(getattr(strangers, stranger)()) as url:
        report = await check_server(url, "seedling")
    found = failures(report)
    assert not report.ok
    assert "logprob_token_ids" in found["temptations"]
    assert "prompt_logprobs" in found["score"]
    assert "serve the model with vLLM" in found["temptations"]
    name = {"sglang": "SGLang", "llamacpp": "llama.cpp", "openai": "this server"}[stranger]
    assert found["temptations"].startswith(name)


def test_nobody_there_is_said_at_once() -> None:
    done = secateur("engine", "check", "http://127.0.0.1:9", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert report["checks"][0]["name"] == "reachable"
    assert "secateur engine serve" in report["checks"][0]["remedy"]
    assert not any(check["ok"] for check in report["checks"])


async def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(EngineError, match="no address"):
        await check_server("ftp://somewhere", "seedling")
