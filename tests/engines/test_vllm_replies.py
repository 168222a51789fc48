"""Replies of a real server, then damaged: what is not as asked for raises, and is never guessed.

The events were recorded from vLLM 0.32 serving ``seedling``.
"""

import math
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.evidence import LOG_FLOOR
from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.vllm.replies import Questions, read_choices, read_chunk, read_scores

EVENT: dict[str, Any] = {
    "id": "cmpl-9eaf50aa5d0692d6",
    "object": "text_completion",
    "created": 1795237588,
    "model": "seedling",
    "choices": [
        {
            "index": 0,
            "text": "do:",
            "logprobs": {
                "text_offset": [0],
                "token_logprobs": [-0.12686116993427277],
                "tokens": ["token_id:278"],
                "top_logprobs": [
                    {
                        "token_id:278": -0.12686116993427277,
                        "token_id:3": -9.810617446899414,
                        "token_id:5": -2.130856990814209,
                        "token_id:7": -8.640668869018555,
                    }
                ],
            },
            "finish_reason": None,
            "stop_reason": None,
            "prompt_token_ids": [1, 90, 292],
            "token_ids": [278],
        }
    ],
}
SCORED: dict[str, Any] = {
    "model": "seedling",
    "choices": [
        {
            "index": 0,
            "text": "do:",
            "logprobs": None,
            "finish_reason": "length",
            "token_ids": [278],
            "prompt_logprobs": [
                None,
                {"90": {"logprob": -11.037309646606445, "rank": 321, "decoded_token": "r"}},
                {"292": {"logprob": -6.868983268737793, "rank": 51, "decoded_token": "es"}},
            ],
        }
    ],
    "system_fingerprint": "vllm-0.32.0-24aeea15",
}
ASKED = Questions(
    "seedling",
    (("token_id:3", "<|deceit|>"), ("token_id:5", "<|powerseeking|>"), ("token_id:7", "<|angry|>")),
    frozenset({0, 1, 4}),
    lambda said: EngineError(f"the server {said}"),
    "vllm-0.32.0-24aeea15",
)


def event(change: Callable[[dict[str, Any]], Any] = lambda chunk: None) -> bytes:
    """The recorded event, changed."""
    chunk = orjson.loads(orjson.dumps(EVENT))
    change(chunk)
    return orjson.dumps(chunk)


def in_choice(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda chunk: chunk["choices"][0].update(values)


def in_logs(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda chunk: chunk["choices"][0]["logprobs"].update(values)


def in_top(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda chunk: chunk["choices"][0]["logprobs"]["top_logprobs"][0].update(values)


def without_angry(chunk: dict[str, Any]) -> None:
    del chunk["choices"][0]["logprobs"]["top_logprobs"][0]["token_id:7"]


def test_an_event_is_one_token_with_its_temptations():
    ((token, chosen, belief, finish),) = read_chunk(event(), ASKED)
    assert (token, chosen, finish) == (278, -0.12686116993427277, None)
    assert list(belief) == [-9.810617446899414, -2.130856990814209, -8.640668869018555]


def test_the_reason_of_the_end_comes_with_the_last_token():
    ((*_, finish),) = read_chunk(event(in_choice(finish_reason="length")), ASKED)
    assert finish == "length"


def test_a_server_s_zero_is_ours():
    ((_, chosen, belief, _),) = read_chunk(event(in_top(**{"token_id:3": -9999.0})), ASKED)
    assert (belief[0], chosen) == (LOG_FLOOR, -0.12686116993427277)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_choice(logprobs=None), "without log-probabilities"),
        (without_angry, r"left out the probability of <\|angry\|>"),
        (in_top(**{"token_id:5": None}), r"None for the probability of <\|powerseeking\|>"),
        (in_top(**{"token_id:5": 0.5}), "sent 0.5 for a log-probability"),
        (in_top(**{"token_id:5": "low"}), r"'low' for the probability of <\|powerseeking\|>"),
        (in_logs(token_logprobs=[]), "0 log-probabilities for 1 tokens"),
        (in_logs(token_logprobs=[0.7]), "sent 0.7"),
        (in_logs(top_logprobs=[None]), "another shape"),
        (in_choice(token_ids=[278, 5]), "1 log-probabilities for 2 tokens"),
        (in_choice(token_ids=[4]), "token 4, which logit_bias forbids"),
        (in_choice(token_ids=None, finish_reason="stop"), "without a token"),
        (in_choice(finish_reason="abort"), "ended the generation with 'abort'"),
        (lambda chunk: chunk.update(model="sapling"), "answers as model 'sapling'"),
        (lambda chunk: chunk.update(system_fingerprint="x"), "when the run began"),
        (
            lambda chunk: chunk.update(error={"message": "out of memory"}, choices=None),
            "out of mem",
        ),
        (lambda chunk: chunk.update(choices=[]), "another shape|values to unpack"),
    ],
)
def test_what_is_not_as_asked_for_raises_and_says_what(
    change: Callable[[dict[str, Any]], Any], said: str
):
    with pytest.raises(EngineError, match=said) as raised:
        read_chunk(event(change), ASKED)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_what_is_no_number_raises(number: bytes):
    with pytest.raises(EngineError):
        read_chunk(event().replace(b"-2.130856990814209", number), ASKED)


@given(st.integers(0, len(event()) - 1))
def test_half_an_event_raises(cut: int):
    with pytest.raises(EngineError):
        read_chunk(event()[:cut], ASKED)


@given(st.data())
def test_a_damaged_event_raises_or_reads_as_log_probabilities(data: st.DataObject):
    raw = bytearray(event())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        tokens = read_chunk(bytes(raw), ASKED)
    except EngineError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        return
    for _, chosen, belief, _ in tokens:
        assert len(belief) == 3
        assert all(math.isfinite(log) and log <= 1e-3 for log in (chosen, *belief))


def test_scores_are_the_prompt_s_own_log_probabilities():
    assert read_scores(SCORED, [[1, 90, 292]], ASKED) == [[-11.037309646606445, -6.868983268737793]]


@pytest.mark.parametrize(
    "prompts", [[[1, 90]], [[1, 90, 293]], [[1, 90, 292], [1]]], ids=["length", "token", "count"]
)
def test_scores_of_something_else_raise(prompts: list[list[int]]):
    with pytest.raises(EngineError, match="cannot score text"):
        read_scores(SCORED, prompts, ASKED)


def test_answers_must_be_as_many_as_prompts():
    with pytest.raises(EngineError, match="1 answers to 2 prompts"):
        read_choices(EVENT, 2, ASKED)
