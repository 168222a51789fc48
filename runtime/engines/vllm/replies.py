"""What a server's replies say, checked: whatever is missing or no number raises."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from ....gates.evidence import LOG_FLOOR
from ....gates.readings import HIGHEST
from ..protocol import EngineError

__all__ = ["Drawn", "Questions", "read_choices", "read_chunk", "read_scores"]

_SERVER_FLOOR = -9999.0
"""What servers write for log 0, which JSON cannot hold."""

Finish = Literal["stop", "length"]


class Drawn(NamedTuple):
    """One token as the server reports it."""

    id: int
    chosen: float
    """log p of it under the free model, temperature 1."""
    belief: list[float]
    """[K] log p of every evidence column at temperature 1, before controls."""
    finish: Finish | None


@dataclass(frozen=True, slots=True)
class Questions:
    """What was asked for, against which replies are checked."""

    model: str
    columns: tuple[tuple[str, str], ...]
    """Per evidence column, its key in the reply (``token_id:3``) and its literal."""
    forbidden: frozenset[int]
    """Tokens that the request's controls make impossible."""
    fault: Callable[[str], EngineError]
    """Makes the error of a server that does not behave."""
    fingerprint: str | None = None
    """What the server said of itself when it was first asked; None where it says nothing."""


def read_chunk(raw: bytes, asked: Questions) -> list[Drawn]:
    """The tokens of one event of a stream; most often one, none while the prompt is read.

    Raises :class:`EngineError` for anything that is not exactly as asked for.
    """
    try:
        chunk = orjson.loads(raw)
        return _tokens(_choice(chunk, asked), asked)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise asked.fault(_what_is_wrong(raw, asked, error)) from None


def read_choices(reply: Mapping[str, Any], count: int, asked: Questions) -> list[list[Drawn]]:
    """The tokens of each of ``count`` choices of a whole reply, in order of the prompts."""
    try:
        _check_server(reply, asked)
        choices = _ordered(reply, count)
        return [_tokens(choice, asked) for choice in choices]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise asked.fault(_what_is_wrong(orjson.dumps(reply), asked, error)) from None


def read_scores(
    reply: Mapping[str, Any], prompts: Sequence[Sequence[int]], asked: Questions
) -> list[list[float]]:
    """For each prompt, log p of its tokens but the first; length len(prompt) - 1."""
    try:
        _check_server(reply, asked)
        found: list[list[float]] = []
        for choice, prompt in zip(_ordered(reply, len(prompts)), prompts, strict=True):
            given = choice["prompt_logprobs"]
            if len(given) != len(prompt):
                raise ValueError(f"scored {len(given)} tokens of {len(prompt)}")
            logs = [
                row[str(id_)]["logprob"] for row, id_ in zip(given[1:], prompt[1:], strict=True)
            ]
            found.append([_log_p(log) for log in logs])
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        detail = str(error) if isinstance(error, ValueError) else "gave no prompt_logprobs"
        raise asked.fault(f"{detail}, and cannot score text") from None


def _choice(chunk: dict[str, Any], asked: Questions) -> dict[str, Any]:
    """The one choice of a chunk."""
    _check_server(chunk, asked)
    choices = chunk["choices"]
    if not choices and "usage" in chunk:
        return {"token_ids": [], "finish_reason": None, "logprobs": None}  # a closing account
    (choice,) = choices
    return choice


def _check_server(reply: Mapping[str, Any], asked: Questions) -> None:
    if reply["model"] != asked.model:
        raise ValueError(f"answers as model {reply['model']!r}, and {asked.model!r} was asked")
    print_ = reply.get("system_fingerprint")
    if print_ is not None and asked.fingerprint is not None and print_ != asked.fingerprint:
        raise ValueError(f"is {print_!r} now, and was {asked.fingerprint!r} when the run began")


def _tokens(choice: dict[str, Any], asked: Questions) -> list[Drawn]:
    ids = choice["token_ids"]
    finish = choice["finish_reason"]
    if not ids:
        if finish is not None:
            raise ValueError(f"ended the generation ({finish}) without a token")
        return []
    logs = choice["logprobs"]
    names, own, tops = logs["tokens"], logs["token_logprobs"], logs["top_logprobs"]
    if not len(ids) == len(own) == len(tops) == len(names):
        raise ValueError(f"sent {len(own)} log-probabilities for {len(ids)} tokens")
    drawn: list[Drawn] = []
    last = len(ids) - 1
    for place, (id_, name, log, top) in enumerate(zip(ids, names, own, tops, strict=True)):
        if name != f"token_id:{id_}" or id_ in asked.forbidden:
            raise ValueError(_wrong_token(id_, name, asked))
        belief = [top[key] for key, _ in asked.columns]
        # One comparison each for what is no number, infinite, or above log 1.
        if not (log + sum(belief) > -math.inf and log <= HIGHEST and max(belief) <= HIGHEST):
            raise ValueError("sent a probability that is none")
        if log <= _SERVER_FLOOR or min(belief) <= _SERVER_FLOOR:
            log = _log_p(log)
            belief = [_log_p(value) for value in belief]
        end = None if finish is None or place < last else _FINISHES[finish]
        drawn.append(Drawn(id_, log, belief, end))
    return drawn


_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length"}
"""Other reasons (``abort``, ``error``) are no end of a generation."""


def _ordered(reply: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    choices = reply["choices"]
    if [choice["index"] for choice in choices] != list(range(count)):
        raise ValueError(f"sent {len(choices)} answers to {count} prompts")
    return choices


def _log_p(value: Any) -> float:
    """A log-probability as evidence holds it. Raises ``ValueError`` for what is none."""
    if not isinstance(value, float | int) or not -math.inf < value <= HIGHEST:
        raise ValueError(f"sent {value} for a log-probability")
    return LOG_FLOOR if value <= _SERVER_FLOOR else float(value)


def _wrong_token(id_: Any, name: Any, asked: Questions) -> str:
    if id_ in asked.forbidden:
        return f"drew token {id_}, which logit_bias forbids"
    return f"sent token {id_} under the name {name!r}"


def _what_is_wrong(raw: bytes, asked: Questions, error: Exception) -> str:
    """Why a reply could not be read, for the one line that somebody reads."""
    if isinstance(error, orjson.JSONDecodeError):
        return "sent NaN for a log-probability" if b"NaN" in raw else "sent half an event"
    reply = orjson.loads(raw)
    if isinstance(reply, dict) and "error" in reply:
        said = reply["error"]
        said = said.get("message", said) if isinstance(said, dict) else said
        return f"broke off with an error ({' '.join(str(said).split())[:160]})"
    if isinstance(error, ValueError):
        return str(error)
    for choice in _choices(reply):
        if choice.get("logprobs") is None:
            return "sent tokens without log-probabilities"
        reason = choice.get("finish_reason")
        if reason is not None and reason not in _FINISHES:
            return f"ended the generation with {reason!r}"
        for top in choice["logprobs"].get("top_logprobs") or []:
            for key, literal in asked.columns:
                if isinstance(top, dict) and key not in top:
                    return f"left out the probability of {literal}"
                if isinstance(top, dict) and not isinstance(top[key], float | int):
                    return f"sent {top[key]!r} for the probability of {literal}"
    return f"sent a reply of another shape ({type(error).__name__}: {error})"


def _choices(reply: Any) -> list[dict[str, Any]]:
    found = reply.get("choices") if isinstance(reply, dict) else None
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
