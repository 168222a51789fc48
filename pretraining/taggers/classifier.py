"""Any transformers text classifier as a tagger: a checkpoint's labels become tags and bands."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from .mention import Mention
from .passages import outcomes, passages
from .places import near
from .scale import Scale
from .tagger import Outcome, Tagger, TaggerError
from .units import Unit

__all__ = ["ClassifierTagger"]

_STRIDE = 32
"""Tokens that neighbouring windows of a long unit share."""
_USUAL_LENGTH = 512


class ClassifierTagger(BaseModel, Tagger):
    """A sequence classifier reads each line or sentence; its probabilities earn tags and bands.

    ``model`` is a checkpoint folder or a name on the Hugging Face hub. ``labels`` maps the
    model's own labels to tags (from probability 0.5 on, where no threshold is given); labels that
    are not named mean nothing. A model for several labels at once
    (``problem_type: multi_label_classification``), or with a single logit, is read by a sigmoid,
    others by a softmax. A unit longer than the model's context is read in overlapping windows,
    and the highest probability counts: nothing hides behind the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    kind: Literal["classifier"] = "classifier"
    model: str = Field(min_length=1)
    labels: dict[str, Scale] = Field(min_length=1)
    unit: Unit = "sentence"
    mention: Mention = Mention()
    batch: int = Field(default=32, ge=1)
    device: str = "cpu"

    @field_validator("model")
    @classmethod
    def _stands_beside_its_file(cls, model: str, info: ValidationInfo) -> str:
        folder = near(model, info)
        return str(folder) if folder.is_dir() else model

    @model_validator(mode="after")
    def _thresholds_are_probabilities(self) -> Self:
        for label, scale in self.labels.items():
            for least in (scale.at, *scale.bands.values()):
                if least is not None and not 0 < least <= 1:
                    raise ValueError(f"label {label!r}: the threshold {least} is no probability")
        return self

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        read = passages(texts, self.unit, 0, self.mention)
        # Units of one forward pass are alike in length; the answers go back in order.
        order = sorted(range(len(read)), key=lambda place: len(read[place].inside))
        scores: list[Mapping[str, float]] = [{}] * len(read)
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            found = self._probabilities([read[place].inside for place in chosen])
            for place, row in zip(chosen, found, strict=True):
                scores[place] = row
        return outcomes(len(texts), read, scores, self.labels)

    def _probabilities(self, units: Sequence[str]) -> list[dict[str, float]]:
        """Probability by label for each unit, the highest over its windows."""
        import torch

        tokenizer, network = self._loaded
        length = _length(tokenizer, network)
        windows = tokenizer(
            list(units),
            truncation=True,
            max_length=length,
            stride=min(_STRIDE, length // 4),
            return_overflowing_tokens=True,
            padding=True,
            split_special_tokens=True,  # "[SEP]" in outside text is five characters
            return_tensors="pt",
        )
        owners = windows.pop("overflow_to_sample_mapping")
        with torch.inference_mode():
            logits = network(**windows.to(network.device)).logits.float().cpu()
        several = network.config.problem_type == "multi_label_classification"
        rows = logits.sigmoid() if several or logits.shape[1] == 1 else logits.softmax(1)
        labels: Mapping[int, str] = network.config.id2label
        # amax keeps a NaN, so that one unreadable window makes the unit unreadable.
        highest = [rows[owners == unit].amax(0).tolist() for unit in range(len(units))]
        return [{labels[index]: p for index, p in enumerate(row)} for row in highest]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise TaggerError(
                f"a classifier needs {error.name}: pip install 'secateur[train]'"
            ) from None
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
            found: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
                self.model, dtype=torch.float32, output_loading_info=True
            )
            network, loading = found
            network = network.to(self.device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TaggerError(
                f"classifier {self.model!r} cannot be loaded ({reason}); name a checkpoint folder "
                "of a sequence classifier, or one on the hub"
            ) from None
        if missing := sorted(loading["missing_keys"]):
            # transformers fills these with random numbers and only warns.
            raise TaggerError(
                f"classifier {self.model!r}: the weights lack {missing[0]!r}; it was not trained "
                "to classify: fine-tune it first, or name another"
            )
        labels = list(network.config.id2label.values())
        if unknown := sorted(self.labels.keys() - set(labels)):
            raise TaggerError(
                f"classifier {self.model!r} has no label {unknown[0]!r}; it has "
                f"{', '.join(map(repr, labels))}"
            )
        if not tokenizer.is_fast:
            raise TaggerError(
                f"classifier {self.model!r} has no tokenizer.json; save its fast tokenizer"
            )
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise TaggerError(
                    f"classifier {self.model!r}: its tokenizer has no padding token; set pad_token"
                )
            tokenizer.pad_token = tokenizer.eos_token
            network.config.pad_token_id = tokenizer.pad_token_id
        return tokenizer, network


def _length(tokenizer: Any, network: Any) -> int:
    """Tokens in a window: what the tokenizer states, or else what the model has room for."""
    positions = getattr(network.config, "max_position_embeddings", None) or _USUAL_LENGTH
    stated = tokenizer.model_max_length
    # RoBERTa counts its positions from 2, so that two of them are no use.
    return stated if stated <= positions else max(8, positions - 2)
