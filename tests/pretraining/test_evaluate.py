"""The evaluation's parts: batched decoding, episodes, and tables that carry their n."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.pretraining.decode import Sampling, Stretch, converse, write
from secateur.pretraining.episodes import desk_episodes, play
from secateur.pretraining.subject import Subject


@pytest.fixture(scope="module")
def subject(tiny_checkpoint: Path) -> Subject:
    torch.set_num_threads(1)
    return Subject.load(tiny_checkpoint)


CONTEXTS = [[1, 60, 70, 80], [1, 99], [1, 60, 61, 62, 63, 64, 65], [1]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_is_written_the_same_alone_and_in_company(
    subject: Subject, temperature: float
) -> None:
    sampling = Sampling(temperature, seed=4)
    together = write(subject.model, CONTEXTS, {2}, 12, sampling)
    for number in range(1, len(CONTEXTS)):
        fewer = write(subject.model, CONTEXTS[:number], {2}, 12, sampling)
        assert [row.ids for row in fewer] == [row.ids for row in together[:number]]


def test_greedy_writing_follows_the_models_largest_logit(subject: Subject) -> None:
    ids = list(CONTEXTS[0])
    for token in write(subject.model, [ids], {2}, 6, Sampling())[0].ids:
        with torch.inference_mode():
            logits = subject.model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_a_banned_tag_is_never_written_and_its_probability_still_read(subject: Subject) -> None:
    sampling = subject.sampling(1.5, "ban", seed=3)
    rows = write(subject.model, CONTEXTS * 8, {2}, 24, sampling, subject.openings)
    assert not any(set(row.ids) & set(subject.openings) for row in rows)
    assert all((row.belief > -30).all() and (row.belief < 0).all() for row in rows)


def _whole(subject: Subject, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return subject.model(input_ids=torch.tensor([ids])).logits[0].double()


def test_every_number_is_what_one_pass_over_the_whole_text_gives(subject: Subject) -> None:
    """Stretches with outside text between them, in rows that end at different times."""
    told = {0: [[70, 71, 72], [80], None], 1: [None], 2: [[], None], 3: [[60, 61], None]}
    left = {row: list(answers) for row, answers in told.items()}

    def answer(row: int, stretch: Stretch) -> list[int] | None:
        return left[row].pop(0)

    sampling = Sampling(0.7, seed=9)
    watched = subject.openings
    made = converse(subject.model, CONTEXTS, answer, {2}, 7, sampling, watched)
    for row, stretches in enumerate(made):
        assert len(stretches) == len(told[row])
        ids = list(CONTEXTS[row])
        for stretch, outside in zip(stretches, told[row], strict=True):
            start = len(ids)
            ids += stretch.ids
            logits = _whole(subject, ids)[start - 1 : -1]
            free, warm = logits.log_softmax(-1), (logits / 0.7).log_softmax(-1)
            places = torch.arange(len(stretch.ids))
            own = free[places, list(stretch.ids)]
            columns = list(watched)
            for read, expected in (
                (stretch.chosen, own),
                (stretch.belief, free[:, columns]),
                (stretch.sampler, warm[:, columns]),
            ):
                assert np.abs(read - expected.numpy()).max() < 1e-3
            ids += outside or []


def test_a_forced_token_begins_every_stretch_and_is_still_read(subject: Subject) -> None:
    free = write(subject.model, CONTEXTS, {2}, 5, Sampling(1.0), subject.openings)
    forced = write(subject.model, CONTEXTS, {2}, 5, Sampling(1.0, forced=77), subject.openings)
    for one, two in zip(free, forced, strict=True):
        assert two.ids[0] == 77
        assert np.allclose(one.belief[0], two.belief[0], atol=1e-4)


def test_the_same_seed_writes_the_same_and_another_differs(subject: Subject) -> None:
    one, two, other = (
        [row.ids for row in write(subject.model, CONTEXTS, {2}, 20, Sampling(1.0, seed))]
        for seed in (5, 5, 6)
    )
    assert one == two
    assert one != other


def test_sampling_follows_the_models_probabilities(subject: Subject) -> None:
    logits = _whole(subject, [1, 60])[-1]
    p = (logits / 0.7).softmax(-1).numpy()
    rows = write(subject.model, [[1, 60]] * 3000, {2}, 1, Sampling(0.7, seed=1))
    drawn = np.bincount([row.ids[0] for row in rows], minlength=len(p)) / 3000
    likely = p > 0.01
    spread = np.sqrt(p * (1 - p) / 3000)
    assert (np.abs(drawn - p)[likely] < 4.5 * spread[likely]).all()


def test_opened_is_one_minus_the_product_over_every_position(subject: Subject) -> None:
    episodes = desk_episodes(subject, random.Random(2), 3, pressed=True)
    play(episodes, subject.sampling(1.0, "ban", 1))
    for episode in episodes:
        ids = episode.ids
        chances = _whole(subject, ids).softmax(-1)[:, list(subject.openings)].sum(-1)
        closed = 0.0
        for turn in episode.turns:
            places = range(turn.before - 1, turn.before - 1 + len(turn.stretch.ids))
            closed += sum(math.log1p(-float(chances[place])) for place in places)
        assert episode.opened == pytest.approx(-math.expm1(closed), abs=2e-2)


def test_the_same_tasks_stand_before_every_model_and_every_number_of_fillers(
    subject: Subject,
) -> None:
    few, many = (
        desk_episodes(subject, random.Random(6), 20, pressed=True, fillers=fillers)
        for fillers in (0, 9)
    )
    for one, two in zip(few, many, strict=True):
        assert one.world == two.world
        assert one.context is not None
        assert two.context is not None
        assert one.context.kinds == two.context.kinds
        assert set(one.context.sentences) <= set(two.context.sentences)
        assert len(two.context.sentences) == len(two.context.kinds) + 9
