"""The evaluation's parts: batched decoding, episodes, and tables that carry their n."""

import json
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.pretraining.errors import PretrainingError
from secateur.pretraining.evaluation.decode import Sampling, Stretch, converse, write
from secateur.pretraining.evaluation.episodes import desk_episodes, play
from secateur.pretraining.evaluation.evaluate import GROUPS, Measurement, controls, evaluate, save
from secateur.pretraining.evaluation.outcomes import Outcome
from secateur.pretraining.evaluation.report import markdown
from secateur.pretraining.evaluation.subject import GOOD, Subject


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
    rows = write(subject.model, CONTEXTS * 8, {2}, 24, sampling, subject.watched)
    assert not any(set(row.ids) & set(subject.watched) for row in rows)
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
    watched = subject.watched
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
    free = write(subject.model, CONTEXTS, {2}, 5, Sampling(1.0), subject.watched)
    forced = write(subject.model, CONTEXTS, {2}, 5, Sampling(1.0, forced=77), subject.watched)
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
        chances = _whole(subject, ids).softmax(-1)[:, list(subject.watched)].sum(-1)
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


def _with_vocabulary(source: Path, folder: Path, tags: list[dict[str, str]]) -> Path:
    """A copy of a model folder with other tags, or with none."""
    shutil.copytree(source, folder)
    named = folder / "vocabulary.json"
    if tags:
        named.write_text(json.dumps({"name": "tiny", "tags": tags}))
    else:
        named.unlink()
    return folder


@pytest.fixture(scope="module")
def prefixed(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    tags = [
        {"name": name, "scheme": "prefix", "open": f"<|{name}|>", "good": "<|angry|>"}
        for name in ("deceit", "powerseeking")
    ]
    folder = tmp_path_factory.mktemp("prefix") / "model"
    return Subject.load(_with_vocabulary(tiny_checkpoint, folder, tags))


def test_a_prefix_model_gets_its_good_token_at_every_line_start(prefixed: Subject) -> None:
    episodes = desk_episodes(prefixed, random.Random(3), 4, pressed=True)
    play(episodes, prefixed.sampling(1.0, GOOD, 1))
    for episode in episodes:
        assert all(turn.stretch.ids[0] == prefixed.good for turn in episode.turns)
        assert not any(episode.tags)


def test_a_prefix_model_is_read_at_line_starts_as_bad_over_bad_and_good(prefixed: Subject) -> None:
    episode = desk_episodes(prefixed, random.Random(3), 1, pressed=True)[0]
    play([episode], prefixed.sampling(1.0, "ban", 1))
    chances = _whole(prefixed, episode.ids).softmax(-1)[:, list(prefixed.watched)]
    first = Outcome.of(episode).lines[0]
    bad, good, worse = chances[episode.turns[0].before - 1].tolist()
    assert prefixed.bound is not None
    assert [column.role for column in prefixed.bound.vocabulary.columns] == ["open", "good", "open"]
    assert first.belief == pytest.approx((bad + worse) / (bad + worse + good), rel=1e-3)


def test_a_span_model_has_nothing_good_to_force_beyond_the_ban(subject: Subject) -> None:
    assert subject.sampling(1.0, GOOD, 5) == subject.sampling(1.0, "ban", 5)
    assert GOOD not in controls(subject)


def test_penalties_are_nats_on_the_opening_tokens_alone(subject: Subject) -> None:
    assert subject.sampling(1.0, "penalise(4)").bias == dict.fromkeys(subject.watched, -4.0)
    assert subject.sampling(1.0, "boost(2)").bias == dict.fromkeys(subject.watched, 2.0)
    assert subject.sampling(1.0, "allow").bias == {}


@pytest.fixture(scope="module")
def measured(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A random model against a twin without tags, on very little."""
    twin = _with_vocabulary(tiny_checkpoint, tmp_path_factory.mktemp("twin") / "plain", [])
    told: list[tuple[int, int]] = []
    facts = evaluate(
        tiny_checkpoint, Measurement(n=2, runs=2), twin, lambda _, done, of: told.append((done, of))
    )
    assert told[-1] == (told[-1][1], told[-1][1])
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    return facts


def _figures(facts: Any) -> Iterator[dict[str, Any]]:
    if isinstance(facts, dict):
        if "low" in facts:
            yield facts
        else:
            for value in facts.values():
                yield from _figures(value)
    elif isinstance(facts, list):
        for value in facts:
            yield from _figures(value)


def test_every_figure_has_its_interval_and_its_n(measured: dict[str, Any]) -> None:
    figures = list(_figures(measured))
    assert len(figures) > 300
    for figure in figures:
        assert {"value", "low", "high"} < set(figure)
        assert {"n", "over_n"} & set(figure)
        if None not in (figure["value"], figure["low"], figure["high"]):
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_the_table_has_every_control_in_its_context(measured: dict[str, Any]) -> None:
    seen = {(row["temperature"], row["context"], row["tags"]) for row in measured["desk"]}
    for context in GROUPS:
        for temperature in (0.7, 1.0):
            assert (temperature, context, "allow") in seen
            assert (temperature, context, "ban") in seen
    for nats in (1, 2, 4, 8):
        assert (0.7, "pressed", f"penalise({nats})") in seen
    assert (0.7, "calm", "boost(2)") in seen


def test_what_is_saved_is_json_a_table_and_two_pictures(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    save(measured, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert json.loads((folder / "evaluation.json").read_text()) == measured
    written = (folder / "evaluation.md").read_text()
    for words in (
        "penalise(4)",
        "against the untagged twin",
        "over-caution",
        "Bayes limit",
        "in short",
    ):
        assert words in written
    assert {path.name for path in folder.iterdir()} == {
        "evaluation.json", "evaluation.md", "reliability.svg", "tradeoff.svg"
    }  # fmt: skip


def test_every_row_of_the_table_is_as_wide_as_its_head(measured: dict[str, Any]) -> None:
    for block in markdown(measured).split("\n\n"):
        widths = {line.count(" | ") for line in block.splitlines() if line.startswith("| ")}
        assert len(widths) <= 1, block


def test_a_model_without_tags_is_measured_by_its_behaviour_alone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = Subject.load(_with_vocabulary(tiny_checkpoint, tmp_path / "plain", []))
    assert controls(plain) == ("allow",)
    assert {one.control for one in Measurement(n=1).plays(plain, None)} == {"allow"}
    episodes = desk_episodes(plain, random.Random(2), 2, pressed=True)
    play(episodes, plain.sampling(1.0, "ban"))
    assert all(math.isnan(Outcome.of(episode).opened) for episode in episodes)


def test_eval_prints_the_table_of_a_plain_model_and_saves_it(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = _with_vocabulary(tiny_checkpoint, tmp_path / "plain", [])
    asked = ["eval", str(plain), "-n", "1", "--save", str(tmp_path / "saved"), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["scheme"] is None
    assert facts["tax"] is None
    assert facts["opened"] == []
    assert {row["tags"] for row in facts["desk"]} == {"allow"}
    assert facts == json.loads((tmp_path / "saved" / "evaluation.json").read_text())
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "evaluation.json", "evaluation.md", "tradeoff.svg"
    }  # fmt: skip


def test_a_twin_that_is_not_there_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    asked = ["eval", str(tiny_checkpoint), "--twin", str(tmp_path / "none")]
    with pytest.raises(PretrainingError, match="none: no model there"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
