"""What may be asked of a model: ids, lengths and settings checked before anything is sent."""

import math
from collections.abc import Sequence

from ...gates.vocabulary import BoundVocabulary
from .protocol import EngineInfo, Request, RequestError

__all__ = ["check_ids", "check_length", "check_request"]


def check_request(request: Request, vocabulary: BoundVocabulary, width: int) -> None:
    """Raise :class:`RequestError` for what cannot be generated with ``width`` token ids."""
    sampling = request.sampling
    if not request.prompt:
        raise RequestError("the prompt is empty; start it with the model's bos token")
    check_ids(request.prompt, width)
    if sampling.max_tokens < 1:
        raise RequestError(f"max_tokens is {sampling.max_tokens}; it must be at least 1")
    if not 0 <= sampling.temperature < math.inf:
        raise RequestError(f"temperature is {sampling.temperature}; it must be 0 or more")
    if not 0 < sampling.top_p <= 1:
        raise RequestError(f"top_p is {sampling.top_p}; it must be above 0 and at most 1")
    if "" in sampling.stop:
        raise RequestError("a stop string is empty; leave it out to generate without stops")
    tags = vocabulary.vocabulary.by_name
    if unknown := sorted(request.controls.keys() - tags.keys()):
        raise RequestError(
            f"the model has no tag {unknown[0]!r} to control; it has {', '.join(tags)}"
        )


def check_ids(ids: Sequence[int], width: int) -> None:
    """Raise :class:`RequestError` for a token id that the model does not have."""
    if ids and not (min(ids) >= 0 and max(ids) < width):
        wrong = next(id_ for id_ in ids if not 0 <= id_ < width)
        raise RequestError(
            f"token id {wrong} is not one of the model's {width}; encode with this engine"
        )


def check_length(info: EngineInfo, given: int, wanted: int) -> None:
    """Raise :class:`RequestError` where text and what is wanted after it are too long."""
    if given + wanted > info.context_length:
        asked = f"{given} tokens" + (f" and {wanted} to generate" if wanted else "")
        raise RequestError(
            f"{asked} do not fit the model's context of {info.context_length}: shorten the task, "
            "or lower the sampling's max_tokens"
        )
