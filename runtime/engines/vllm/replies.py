"""What a server's replies say, checked: whatever is missing or no number raises."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal

import orjson

from ....gates.evidence import LOG_FLOOR
from ....gates.readings import HIGHEST
from ..protocol import EngineError

__all__ = ["Drawn", "Questions", "most_bytes", "read_choices", "read_chunk", "read_scores"]

_SERVER_FLOOR = -9999.0
"""What servers write for log 0, which JSON cannot hold."""

Finish = Literal["stop", "length"]


Drawn = tuple[int, float, Sequence[float], Finish | None]
"""One token as the server reports it: its id; log p of it under the free model at temperature 1;
[K] log p of every evidence column, the same; why the generation ends with it, if it does."""


@dataclass(frozen=True)
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
    width: int = 1 << 31
    """Number of token ids that the model has."""

    @cached_property
    def beliefs(self) -> Callable[[Mapping[str, float]], Sequence[float]]:
        """Picks the evidence columns out of one position's probabilities."""
        keys = [key for key, _ in self.columns]
        if len(keys) == 1:
            return lambda top: (top[keys[0]],)
        return itemgetter(*keys)


def read_chunk(raw: bytes, asked: Questions) -> list[Drawn]:
    """The tokens of one event of a stream; most often one, none while the prompt is read.

    Raises :class:`EngineError` for anything that is not exactly as asked for.
    """
    try:
        chunk = orjson.loads(raw)
        _check_server(chunk, asked)
        choices = chunk["choices"]
        if not choices and "usage" in chunk:
            return []  # a closing account
        if len(choices) > 1 or choices[0].get("index", 0) != 0:
            raise ValueError("sent another choice beside the one asked for")
        return _tokens(choices[0], asked)
    except orjson.JSONDecodeError:
        number = b"NaN" in raw
        said = "sent NaN for a log-probability" if number else "sent half an event"
        raise asked.fault(said) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise asked.fault(_what_is_wrong(orjson.loads(raw), asked, error)) from None


def read_choices(reply: Mapping[str, Any], count: int, asked: Questions) -> list[Drawn]:
    """The one token of each of ``count`` choices of a whole reply, in order of the prompts."""
    try:
        _check_server(reply, asked)
        tokens = [_tokens(choice, asked) for choice in _ordered(reply, count)]
        if any(len(drawn) != 1 for drawn in tokens):
            raise ValueError("sent another number of tokens than the one asked for")
        return [drawn for (drawn,) in tokens]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise asked.fault(_what_is_wrong(reply, asked, error)) from None


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


def most_bytes(prompts: Iterable[Sequence[int]]) -> int:
    """More than a reply on such prompts ever takes."""
    return (4 << 20) + 1024 * sum(map(len, prompts))


def _check_server(reply: Mapping[str, Any], asked: Questions) -> None:
    if reply["model"] != asked.model:
        was = _plain(reply["model"])
        raise ValueError(f"answers as model {was}, and {asked.model!r} was asked")
    print_ = reply.get("system_fingerprint")
    if print_ is not None and asked.fingerprint is not None and print_ != asked.fingerprint:
        now = _plain(print_)
        raise ValueError(f"is {now} now, and was {asked.fingerprint!r} when the run began")


def _tokens(choice: dict[str, Any], asked: Questions) -> list[Drawn]:
    ids = choice["token_ids"]
    finish = choice["finish_reason"]
    if not ids:
        if finish is not None:
            raise ValueError(f"ended the generation ({_plain(finish)}) without a token")
        return []
    logs = choice["logprobs"]
    own, tops = logs["token_logprobs"], logs["top_logprobs"]
    if not len(ids) == len(own) == len(tops):
        raise ValueError(f"sent {len(own)} log-probabilities for {len(ids)} tokens")
    drawn: list[Drawn] = []
    pick = asked.beliefs
    for id_, log, top in zip(ids, own, tops, strict=True):
        belief = pick(top)
        # One comparison each for what is no number, log 0, or above log 1.
        if not (log + sum(belief) > _SERVER_FLOOR and log <= HIGHEST and max(belief) <= HIGHEST):
            log, belief = _log_p(log), [_log_p(value) for value in belief]
        if type(id_) is not int or not 0 <= id_ < asked.width:
            raise ValueError(
                f"drew token {_plain(id_)}, which is none of the model's {asked.width}"
            )
        if id_ in asked.forbidden:
            raise ValueError(f"drew token {id_}, which logit_bias forbids")
        drawn.append((id_, log, belief, None))
    for id_, name in zip(ids, logs.get("tokens") or (), strict=False):
        if isinstance(name, str) and name.startswith("token_id:") and name[9:] != str(id_):
            raise ValueError(f"calls token {id_} {_plain(name)}")
    if finish is not None:
        drawn[-1] = (*drawn[-1][:3], _FINISHES[finish])
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
        raise ValueError(f"sent {_plain(value)} for a log-probability")
    return LOG_FLOOR if value <= _SERVER_FLOOR else float(value)


def _plain(value: Any) -> str:
    """A value for one line; what holds others, however deep, is named by its kind."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)[:80]
    return f"a {type(value).__name__}"


def _what_is_wrong(reply: Any, asked: Questions, error: Exception) -> str:
    """Why a reply could not be read, for the one line that somebody reads."""
    if isinstance(reply, dict) and "error" in reply:
        said = reply["error"]
        said = said.get("message") if isinstance(said, dict) else said
        said = said if isinstance(said, str) else _plain(said)
        return f"broke off with an error ({' '.join(said.split())[:160]})"
    if isinstance(error, ValueError):
        return str(error)
    for choice in _choices(reply):
        if choice.get("logprobs") is None:
            return "sent tokens without log-probabilities"
        reason = choice.get("finish_reason")
        if reason is not None and reason not in (*_FINISHES,):
            return f"ended the generation with {_plain(reason)}"
        logs = choice["logprobs"]
        tops = logs.get("top_logprobs") if isinstance(logs, dict) else None
        for top in tops if isinstance(tops, list) else []:
            for key, literal in asked.columns:
                if isinstance(top, dict) and key not in top:
                    return f"left out the probability of {literal}"
                if isinstance(top, dict) and not isinstance(top[key], float | int):
                    return f"sent {_plain(top[key])} for the probability of {literal}"
    return f"sent a reply of another shape ({type(error).__name__}: {error})"


def _choices(reply: Any) -> list[dict[str, Any]]:
    found = reply.get("choices") if isinstance(reply, dict) else None
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
