"""The posterior's terms in bulk are those that the runtime makes one generation at a time."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from secateur.gates.evidence import SentenceScore
from secateur.pretraining.evaluation.episodes import desk_episodes, evidence_of, play
from secateur.pretraining.evaluation.subject import Subject
from secateur.pretraining.retagging import weighing
from secateur.pretraining.retagging.weighing import Passage, Row, WeighingError, context_of, weigh
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.generation.scoring import weigh as weigh_one

SEEDLING = Path(__file__).parents[2] / "models" / "seedling"


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return Subject.load(SEEDLING)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Subject:
    torch.set_num_threads(1)
    return Subject.load(tiny_checkpoint)


def row(*lines: int, marked: bool = False) -> Row:
    """A row of lines of so many tokens, made up; with ``marked`` each carries the first tag."""
    ids, passages = [1, 40, 41], []
    for number, length in enumerate(lines):
        body = tuple(60 + (7 * number + place) % 90 for place in range(length))
        start = len(ids)
        ids += [3, *body, 4, 50] if marked else [*body, 50]
        passages.append(Passage(start, len(ids), body, (50,), marked=marked))
    return Row(tuple(ids), tuple(passages))


def close(one: SentenceScore, two: SentenceScore, within: float = 2e-3) -> bool:
    """Both terms of every story, as far as batches and rounding to float16 may move them."""
    pairs = [(one.untagged, two.untagged)]
    pairs += [(one.opens[tag], two.opens[tag]) for tag in one.opens]
    for tag in one.tagged:
        here, there = one.tagged[tag], two.tagged[tag]
        if here is None or there is None:
            return here is there
        pairs.append((here, there))
    return all(abs(a - b) <= within * max(1.0, abs(a)) for a, b in pairs)


def test_terms_are_those_that_the_runtime_makes(subject: Subject) -> None:
    tasks = desk_episodes(subject, random.Random(3), 6, pressed=True)
    play(tasks, subject.sampling(1.0, "allow", 3))
    assert subject.bound is not None
    tags = set(subject.bound.ids.values())
    rows, turns = [], []
    for task in tasks:
        passages = []
        for turn in task.turns:
            *line, newline = turn.stretch.ids
            body = tuple(id_ for id_ in line if id_ not in tags)
            passages.append(
                Passage(turn.before, turn.before + len(line) + 1, body, (newline,),
                        marked=not tags.isdisjoint(line))
            )  # fmt: skip
            turns.append((task.ids[: turn.before], turn.stretch))
        rows.append(Row(tuple(task.ids), tuple(passages)))
    assert any(passage.marked for one in rows for passage in one.passages)

    async def one_by_one() -> list[SentenceScore]:
        engine = LocalEngine.load(SEEDLING, device="cpu")
        found = []
        for context, stretch in turns:
            texts = [engine.decode([id_]) for id_ in stretch.ids]
            evidence = await weigh_one(engine, context, evidence_of(subject, [stretch]), texts)
            found += evidence.sentences
        await engine.aclose()
        return found

    expected = asyncio.run(one_by_one())
    scores = dict(weigh(subject, rows))
    found = [score for number in range(len(rows)) for score in scores[number]]
    assert len(found) == len(expected)
    assert any(p is not None for score in found for p in score.tagged.values())
    for one, two in zip(found, expected, strict=True):
        assert (one.start, one.end) == (two.start, two.end)
        assert close(one, two), (one, two)


@pytest.mark.parametrize("marked", [False, True])
def test_a_row_is_weighed_the_same_alone_and_in_company(tiny: Subject, marked: bool) -> None:
    rows = [row(4, 3, 6, marked=marked), row(9, marked=marked), row(2, 2, 2, 2, 2, marked=marked)]
    together = dict(weigh(tiny, rows))
    for number, one in enumerate(rows):
        [(_, alone)] = weigh(tiny, [one])
        assert len(alone) == len(one.passages)
        assert all(close(a, b) for a, b in zip(alone, together[number], strict=True))


def test_stories_that_find_no_room_wait_for_the_next_pass(
    tiny: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(4, 3, 6), row(9)]
    at_once = dict(weigh(tiny, rows))
    monkeypatch.setattr(weighing, "_TOGETHER", 8)
    monkeypatch.setattr(weighing, "_KEYS", 40)
    in_turn = dict(weigh(tiny, rows))
    for number, one in in_turn.items():
        assert all(close(a, b) for a, b in zip(one, at_once[number], strict=True))


def test_a_line_that_was_broken_off_is_not_closed(tiny: Subject) -> None:
    whole = row(5)
    passage = whole.passages[0]
    [(_, [closed])] = weigh(tiny, [whole])
    broken = replace(passage, tail=(), complete=False, end=passage.end - 1)
    [(_, [open_])] = weigh(tiny, [Row(whole.ids[:-1], (broken,))])
    for tag, log in open_.tagged.items():
        other = closed.tagged[tag]
        assert log is not None
        assert other is not None
        assert log > other + 1  # the closing tag and the newline cost probability


def test_a_model_without_span_tags_has_no_posterior(tiny: Subject) -> None:
    with pytest.raises(WeighingError, match="has none; name a model"):
        next(weigh(replace(tiny, bound=None), [row(4)]))


def test_a_row_that_leaves_no_room_for_a_tag_is_refused(tiny: Subject) -> None:
    with pytest.raises(WeighingError, match="cut the document"):
        next(weigh(tiny, [row(context_of(tiny) - 4)]))
