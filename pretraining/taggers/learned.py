"""A tagger that learns from labelled spans: n-grams and logistic regression, of scikit-learn.

It is stored as numbers and JSON, never as a pickle: loading one runs nobody's code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..corpus.document import Document
from ..evaluation.measures import Rate
from .mention import Mention
from .passages import Passage, outcomes, passages
from .scale import Scale
from .tagger import Outcome, Tagger, TaggerError
from .units import Unit

__all__ = ["CrossValidation", "LearnedTagger", "LearningConfig", "cross_validate", "learn"]

Numbers = NDArray[np.float64]

_CARD, _NUMBERS = "tagger.json", "tagger.npz"
_MOST_FEATURES = 50_000


class LearningConfig(BaseModel):
    """What the classifier reads of each unit, and how firmly it is held back.

    Word n-grams up to ``words`` and character n-grams up to ``characters`` of the unit itself, and
    word n-grams up to ``words`` of the ``context`` units before it. Without context a tagger
    judges words; with it, it can hold a claim against what was established.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Unit = "line"
    context: int = Field(default=0, ge=0)
    words: int = Field(default=2, ge=1, le=5)
    characters: int = Field(default=4, ge=0, le=8)
    strength: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """C of the logistic regression: the higher, the closer it follows the examples."""
    mention: Mention = Mention()


class _Card(BaseModel):
    """What ``tagger.json`` holds beside the numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["secateur-tagger-1"] = "secateur-tagger-1"
    config: LearningConfig
    labels: dict[str, Scale]
    vocabularies: tuple[tuple[str, ...], ...]
    learnt_from: int


@dataclass(frozen=True, slots=True)
class LearnedTagger(Tagger):
    """Logistic regressions, one a label, over weighed n-grams. Made by :func:`learn`."""

    config: LearningConfig
    labels: dict[str, Scale]
    """``deceit``, or ``deceit/2`` for a band; with the tag, and the threshold on probability."""
    features: "_Features"
    weights: Numbers
    """[labels x features]"""
    offsets: Numbers
    """[labels]"""
    learnt_from: int
    """How many documents taught it."""

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        read = passages(texts, self.config.unit, self.config.context, self.config.mention)
        if not read:
            return [()] * len(texts)
        margins = self.features.of(read) @ self.weights.T + self.offsets
        scores = 1 / (1 + np.exp(-margins))
        rows = (dict(zip(self.labels, row, strict=True)) for row in scores.tolist())
        return outcomes(len(texts), read, rows, self.labels)

    def save(self, folder: Path) -> None:
        """Write ``tagger.json`` (settings, n-grams) and ``tagger.npz`` (numbers, no pickle)."""
        folder.mkdir(parents=True, exist_ok=True)
        card = _Card(
            config=self.config,
            labels=self.labels,
            vocabularies=self.features.vocabularies,
            learnt_from=self.learnt_from,
        )
        (folder / _CARD).write_text(card.model_dump_json(indent=1), "utf-8")
        numbers: dict[str, Any] = {"weights": self.weights, "offsets": self.offsets}
        numbers |= {f"rarity{n}": rarity for n, rarity in enumerate(self.features.rarities)}
        np.savez_compressed(folder / _NUMBERS, **numbers)

    @classmethod
    def load(cls, folder: Path, at: float | None = None) -> "LearnedTagger":
        """Read what :meth:`save` wrote; ``at`` replaces the stored thresholds.

        Raises :class:`TaggerError`.
        """
        try:
            card = _Card.model_validate_json((folder / _CARD).read_bytes())
            with np.load(folder / _NUMBERS, allow_pickle=False) as stored:
                numbers = {name: np.asarray(stored[name], dtype=np.float64) for name in stored}
            rarities = tuple(numbers[f"rarity{n}"] for n in range(len(card.vocabularies)))
            weights, offsets = numbers["weights"], numbers["offsets"]
        except (OSError, ValidationError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TaggerError(
                f"{folder}: no learned tagger ({reason}); make one with 'secateur pretrain "
                "learn-tagger'"
            ) from None
        sizes = tuple(len(terms) for terms in card.vocabularies)
        fits = (
            tuple(len(rarity) for rarity in rarities) == sizes
            and weights.shape == (len(card.labels), sum(sizes))
            and offsets.shape == (len(card.labels),)
            and all(np.isfinite(array).all() for array in (weights, offsets, *rarities))
        )
        if not fits:
            raise TaggerError(f"{folder}: {_CARD} and {_NUMBERS} do not fit; learn the tagger anew")
        features = _Features(card.config, card.vocabularies, rarities)
        labels = card.labels if at is None else {name: _scale(name, at) for name in card.labels}
        return cls(card.config, labels, features, weights, offsets, card.learnt_from)


class _Features:
    """From passages to weighed n-grams, one block a vectorizer."""

    def __init__(
        self,
        config: LearningConfig,
        vocabularies: tuple[tuple[str, ...], ...],
        rarities: tuple[Numbers, ...],
    ) -> None:
        """``rarities``: the inverse document frequencies of each block's n-grams."""
        self.config, self.vocabularies, self.rarities = config, vocabularies, rarities
        self._blocks = _vectorizers(config)
        for block, terms, rarity in zip(self._blocks, vocabularies, rarities, strict=True):
            block.vocabulary = {term: place for place, term in enumerate(terms)}
            block.idf_ = rarity

    @classmethod
    def fit(cls, config: LearningConfig, read: Sequence[Passage]) -> "_Features":
        vocabularies, rarities = [], []
        for block, texts in zip(_vectorizers(config), _texts(config, read), strict=True):
            block.fit(texts)
            vocabularies.append(tuple(map(str, block.get_feature_names_out())))
            rarities.append(np.asarray(block.idf_, dtype=np.float64))
        return cls(config, tuple(vocabularies), tuple(rarities))

    def of(self, read: Sequence[Passage]) -> Any:
        """A sparse matrix [passages x features]."""
        from scipy.sparse import hstack

        texts = _texts(self.config, read)
        blocks = [block.transform(own) for block, own in zip(self._blocks, texts, strict=True)]
        return hstack(blocks, format="csr")


def _vectorizers(config: LearningConfig) -> list[Any]:
    _needs_sklearn()
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single letters and punctuation are words too: "I", and the colon of "do:".
    spell: dict[str, Any] = {
        "token_pattern": r"\w+|[^\w\s]", "ngram_range": (1, config.words), "lowercase": True,
        "sublinear_tf": True, "max_features": _MOST_FEATURES,
    }  # fmt: skip
    found = [TfidfVectorizer(**spell)]
    if config.characters:
        found.append(
            TfidfVectorizer(
                analyzer="char_wb", ngram_range=(2, max(2, config.characters)),
                sublinear_tf=True, max_features=_MOST_FEATURES,
            )
        )  # fmt: skip
    return [*found, TfidfVectorizer(**spell)] if config.context else found


def _texts(config: LearningConfig, read: Sequence[Passage]) -> list[list[str]]:
    inside = [passage.inside for passage in read]
    blocks = [inside, inside] if config.characters else [inside]
    return [*blocks, [passage.before for passage in read]] if config.context else blocks


def _needs_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise TaggerError(
            f"a learned tagger needs {error.name}: pip install 'secateur[train]'"
        ) from None


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """How the tagger does on documents that did not teach it, over their lines or sentences."""

    precision: dict[str, Rate]
    """Per label: of the units that it tagged, how many bear the label."""
    recall: dict[str, Rate]
    """Per label: of the units that bear the label, how many it tagged."""
    folds: int

    def to_json(self) -> dict[str, object]:
        """Folds, and per label precision and recall with their Wilson intervals."""
        labels = {
            label: {
                "precision": self.precision[label].to_json(),
                "recall": self.recall[label].to_json(),
            }
            for label in self.precision
        }
        return {"folds": self.folds, "labels": labels}


def learn(documents: Iterable[Document], config: LearningConfig, at: float = 0.5) -> LearnedTagger:
    """Learn to tag as the documents' spans do, firing from probability ``at`` on.

    A unit bears a label where a span covers at least half of it. Raises :class:`TaggerError`.
    """
    lessons = _Lessons.of(documents, config)
    features = _Features.fit(config, lessons.read)
    weights, offsets = _fit(features.of(lessons.read), lessons.marks, config.strength)
    scales = {label: _scale(label, at) for label in lessons.labels}
    return LearnedTagger(config, scales, features, weights, offsets, lessons.documents)


def cross_validate(
    documents: Iterable[Document], config: LearningConfig, at: float = 0.5, folds: int = 5
) -> CrossValidation:
    """Precision and recall by label; a document's units all stand in the same fold.

    Raises :class:`TaggerError`.
    """
    _needs_sklearn()
    from sklearn.model_selection import GroupKFold

    lessons = _Lessons.of(documents, config)
    if lessons.documents < folds:
        raise TaggerError(
            f"{lessons.documents} documents make no {folds} folds; give more, or fewer folds"
        )
    fired = np.zeros_like(lessons.marks)
    groups = [passage.number for passage in lessons.read]
    for seen, unseen in GroupKFold(folds).split(lessons.read, groups=groups):
        taught = [lessons.read[place] for place in seen]
        features = _Features.fit(config, taught)
        weights, offsets = _fit(features.of(taught), lessons.marks[seen], config.strength)
        margins = features.of([lessons.read[place] for place in unseen]) @ weights.T + offsets
        fired[unseen] = 1 / (1 + np.exp(-margins)) >= at
    right = (fired & lessons.marks).sum(0).tolist()
    return CrossValidation(
        {name: Rate(right[n], int(fired[:, n].sum())) for n, name in enumerate(lessons.labels)},
        {
            name: Rate(right[n], int(lessons.marks[:, n].sum()))
            for n, name in enumerate(lessons.labels)
        },
        folds,
    )


@dataclass(frozen=True, slots=True)
class _Lessons:
    """Passages with the labels that they bear."""

    read: list[Passage]
    labels: list[str]
    marks: NDArray[np.bool_]
    """[passages x labels]"""
    documents: int

    @classmethod
    def of(cls, documents: Iterable[Document], config: LearningConfig) -> "_Lessons":
        texts: list[str] = []
        spans = []
        for document in documents:
            texts.append(document.plain)
            spans.append(document.spans)
        read = passages(texts, config.unit, config.context, config.mention)
        borne = [
            {
                span.tag if span.band is None else f"{span.tag}/{span.band}"
                for span in spans[passage.number]
                if _covers(span.start, span.end, *passage.place)
            }
            for passage in read
        ]
        labels = sorted(set().union(*borne))
        if not labels:
            raise TaggerError(
                f"none of {len(texts)} documents has a span, so there is nothing to learn; give "
                "documents that are tagged already"
            )
        marks = np.array([[label in own for label in labels] for own in borne], dtype=np.bool_)
        if marks.all(0).any():
            always = labels[int(marks.all(0).argmax())]
            raise TaggerError(
                f"every {config.unit} bears {always!r}, so there is nothing to tell apart; give "
                "documents with other text too"
            )
        return cls(read, labels, marks, len(texts))


def _covers(start: int, end: int, first: int, last: int) -> bool:
    """Whether [start, end) covers at least half of [first, last)."""
    return 2 * (min(end, last) - max(start, first)) >= last - first


def _scale(label: str, at: float) -> Scale:
    tag, _, band = label.partition("/")
    return Scale(tag=tag, bands={int(band): at}) if band else Scale(tag=tag, at=at)


def _fit(rows: Any, marks: NDArray[np.bool_], strength: float) -> tuple[Numbers, Numbers]:
    """Weights [labels x features] and offsets [labels]."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weights = np.zeros((marks.shape[1], rows.shape[1]))
    offsets = np.full(marks.shape[1], _NEVER)
    for label in range(marks.shape[1]):
        if not marks[:, label].any():  # a rare label may be missing from what teaches a fold
            continue
        regression: Any = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        with threadpool_limits(1):  # sparse rows: more threads only wait for one another
            regression.fit(rows, marks[:, label])
        weights[label], offsets[label] = regression.coef_[0], regression.intercept_[0]
    return weights, offsets


_NEVER = -50.0
"""The offset of a label that was never seen: it does not fire."""
