"""Pictures of runs: what is folded, where boxes stand, and that SVG and Mermaid stay readable."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.thought import Status, Thought
from secateur.gates.verdict import Action, Crossing, Verdict
from secateur.runtime.pictures.folding import Fold, Picture, picture
from secateur.runtime.pictures.kin import kin_of
from secateur.runtime.pictures.layout import layered
from secateur.runtime.pictures.mermaid import MOST_EDGES, mermaid
from secateur.runtime.pictures.svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def cut(tag: str, score: float, reading: str = "posterior") -> Verdict:
    crossing = Crossing(0, tag, reading, score, 0.2, Action.PRUNE, 0, 1)
    return Verdict(Action.PRUNE, (crossing,), {tag: {"peak": 0.25}})


def child(id: str, *parents: str, **given) -> Thought:
    return Thought(id, "step", given.pop("kind", "generate"), parents, **given)


def searched(count: int, width: int = 3, branches: int = 5, seed: int = 1) -> list[Thought]:
    """What a beam search of ``count`` thoughts leaves, or of fewer, when all of a level are cut."""
    rng = random.Random(seed)
    thoughts = [Thought("root", "task", "task", text="the task")]
    beam = ["root"]
    while beam and len(thoughts) < count:
        level: list[Thought] = []
        for number, parent in enumerate(beam * branches):
            id, luck = f"{len(thoughts) + number:04x}", rng.random()
            if luck < 0.3:
                verdict = cut("deceit", rng.uniform(0.2, 1))
                level.append(child(id, parent, status=Status.PRUNED, judgement=verdict))
            elif luck < 0.35:
                level.append(child(id, parent, status=Status.FAILED, reason="no digits"))
            else:
                level.append(child(id, parent, text=f"step {id}", score=rng.random()))
        alive = sorted((t for t in level if t.lives), key=lambda t: -(t.score or 0))
        beam = [thought.id for thought in alive[:width]]
        lost = {thought.id for thought in alive[width:]}
        thoughts += [
            replace(t, status=Status.DROPPED, reason="lost") if t.id in lost else t for t in level
        ]
    return thoughts


def folds(drawn: Picture) -> list[Fold]:
    return [item for item in drawn.items() if isinstance(item, Fold)]


def shown(drawn: Picture) -> set[str]:
    return {item.id for item in drawn.items() if not isinstance(item, Fold)}


# Folding


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(0, 10**6), st.booleans())
def test_every_thought_is_shown_or_folded_exactly_once(
    count: int, seed: int, everything: bool
) -> None:
    thoughts = searched(count, seed=seed)
    drawn = picture(thoughts, everything=everything)
    there = Counter(shown(drawn))
    there.update(thought.id for fold in folds(drawn) for thought in fold.thoughts)
    assert there == Counter(thought.id for thought in thoughts)
    assert drawn.folded == 0 if everything else True


def test_500_thoughts_are_read_in_a_hundred_lines_and_what_lives_is_never_folded() -> None:
    thoughts = searched(500)
    drawn = picture(thoughts)
    assert len(drawn.items()) < 120
    parents = {thought.id: thought.parents for thought in thoughts}
    ends = [t.id for t in thoughts if t.lives and not any(t.id in p for p in parents.values())]
    line = ends[-1:]
    while parents[line[-1]]:
        line.append(parents[line[-1]][0])
    assert set(line) <= shown(drawn)


def test_a_fold_says_how_many_which_tags_and_the_highest_score() -> None:
    thoughts = [
        child("a"),
        *(
            child(f"b{n}", "a", status=Status.PRUNED, judgement=cut("deceit", 0.3 + n / 10))
            for n in range(6)
        ),
        child("c", "a", status=Status.PRUNED, judgement=cut("angry", 1.0, "emitted")),
        child("d", "a", status=Status.DROPPED),
        child("e", "a", status=Status.FAILED, reason="no digits"),
        child("f", "a"),
    ]
    (fold,) = folds(picture(thoughts))
    assert fold.summary == (
        "9 folded: 7 cut (deceit 6, angry 1; highest deceit posterior 0.80), 1 failed, 1 dropped"
    )


def test_a_small_run_shows_its_cut_branches_and_a_pruned_subtree_is_folded() -> None:
    few = [child("a"), *(child(f"b{n}", "a", status=Status.PRUNED) for n in range(3))]
    assert folds(picture([*few, child("c", "a")])) == []
    below = [child(f"d{n}", "b0" if n == 0 else f"d{n - 1}") for n in range(9)]
    below = [replace(thought, status=Status.PRUNED) for thought in below]
    (fold,) = folds(picture([*few, child("c", "a"), *below]))
    assert len(fold.thoughts) == 12


def test_a_dropped_thought_with_a_living_refinement_is_shown() -> None:
    thoughts = [
        child("a"),
        child("b", "a", status=Status.DROPPED),
        *(child(f"x{n}", "a", status=Status.DROPPED) for n in range(80)),
        child("c", "b", kind="refine"),
    ]
    assert shown(picture(thoughts)) == {"a", "b", "c"}


def test_a_result_that_was_kept_beside_its_refinements_is_shown() -> None:
    thoughts = [
        child("a"),
        *(child(f"x{n}", "a", status=Status.DROPPED) for n in range(80)),
        child("b", "a"),
        *(child(f"r{n}", "b", kind="refine", status=Status.DROPPED) for n in range(2)),
    ]
    assert "b" in shown(picture(thoughts))


def test_unfolding_a_thought_opens_its_fold_and_no_other() -> None:
    thoughts = searched(300)
    before = folds(picture(thoughts))
    fold = before[2]
    opened = picture(thoughts, unfold=[fold.thoughts[-1].id])
    assert {t.id for t in fold.thoughts} & shown(opened)
    assert fold.thoughts[-1].id in shown(opened)
    assert fold.id not in {one.id for one in folds(opened)}
    assert {one.id for one in before} - {fold.id} <= {one.id for one in folds(opened)}


def test_a_run_of_which_nothing_survived_shows_what_cut_it() -> None:
    thoughts = [child("a"), child("b", "a"), child("c", "b", status=Status.PRUNED)]
    assert shown(picture(thoughts)) == {"a", "b", "c"}


def test_merges_are_named_the_living_first_and_stand_once() -> None:
    thoughts = [
        child("a"), child("b", "a"), child("c", "a"),
        child("d", "b", "c", kind="aggregate", status=Status.DROPPED),
        child("e", "b", "c", kind="aggregate"),
    ]  # fmt: skip
    drawn = picture(thoughts)
    assert drawn.merges == {"e": "M1", "d": "M2"}
    assert set(drawn.into["c"]) == {"M1", "M2"}
    assert "b" not in drawn.into
    assert drawn.parents["e"] == ("b", "c")


# Kin


def test_kin_are_children_siblings_and_tries_of_the_same_place() -> None:
    class Placed(Thought):
        index = 0

    def at(index: int, thought: Thought) -> Placed:
        fields = {name: getattr(thought, name) for name in Thought.__slots__}
        placed = Placed(**fields)
        object.__setattr__(placed, "index", index)
        return placed

    kin = kin_of(
        [
            at(0, child("a")),
            at(0, child("b", "a", status=Status.PRUNED)),
            at(0, child("b2", "a", attempt=1)),
            at(1, child("c", "a", status=Status.DROPPED)),
            at(0, child("m", "b2", "c")),
        ]
    )
    assert kin["a"].children == ("b", "b2", "c")
    assert (kin["b"].tries, kin["b2"].siblings) == (("b", "b2"), ("c",))
    assert kin["c"].children == ("m",)


# Layout


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]], list[float]]:
    count = draw(st.integers(1, 25))
    sizes = [(draw(st.integers(5, 60)) * 1.0, draw(st.integers(5, 60)) * 1.0) for _ in range(count)]
    edges = {
        (draw(st.integers(0, end - 1)), end)
        for end in range(1, count)
        for _ in range(draw(st.integers(0, 3)))
    }
    return sizes, sorted(edges), [draw(st.sampled_from((1.0, 0.01))) for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_boxes_never_overlap_and_edges_point_forward(graph) -> None:
    sizes, edges, pulls = graph
    laid = layered(sizes, edges, pulls, gap=4, layer_gap=10)
    for one, two in combinations(range(len(sizes)), 2):
        apart = [
            abs(laid.boxes[one][axis] - laid.boxes[two][axis])
            - (sizes[one][axis] + sizes[two][axis]) / 2
            for axis in (0, 1)
        ]
        assert max(apart) > -1e-6
    for (start, end), points in zip(edges, laid.edges, strict=True):
        assert points[0] == pytest.approx(
            (laid.boxes[start][0] + sizes[start][0] / 2, laid.boxes[start][1])
        )
        assert points[-1] == pytest.approx(
            (laid.boxes[end][0] - sizes[end][0] / 2, laid.boxes[end][1])
        )
        assert all(one[0] <= two[0] for one, two in pairwise(points))
    assert all(-1e-6 <= place <= laid.across + 1e-6 for _, place in laid.boxes)


def test_a_tree_has_no_crossings_and_a_line_of_thoughts_is_straight() -> None:
    edges = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (5, 6)]
    laid = layered([(10, 10)] * 7, edges, [1.0] * 7, gap=5, layer_gap=10)
    across = [place for _, place in laid.boxes]
    assert across[3] < across[4] < across[5]
    assert across[2] == pytest.approx(across[5], abs=0.5)
    assert across[5] == pytest.approx(across[6], abs=0.5)


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        layered([(1, 1)] * 2, [(0, 1), (1, 0)], [1, 1], gap=1, layer_gap=1)


# SVG


def boxes(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return (group for group in root.iter(f"{SVG}g") if group.get("transform"))


def test_the_svg_has_each_shown_thought_once_with_its_words_as_a_tooltip() -> None:
    thoughts = [
        child("a", text="the whole text of the task, which is longer than a box can hold"),
        child("b", "a", status=Status.PRUNED, judgement=cut("deceit", 0.87)),
        child("c", "a", text="went on", score=0.5),
    ]
    root = ElementTree.fromstring(svg(picture(thoughts, "a run")))
    told = {box.findtext(f"{SVG}title"): box for box in boxes(root)}
    assert len(told) == 3
    assert any("longer than a box can hold" in words for words in told)
    (dead,) = [box for box in told.values() if box.get("class") == "cut"]
    assert "deceit posterior 0.87 ≥ 0.2" in "".join(dead.itertext())
    legend = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "legend")
    assert "1 cut" in "".join(legend.itertext())
    assert "2 kept" in "".join(legend.itertext())


def test_colour_is_not_the_only_sign() -> None:
    """Each fate has a mark of its own, and its mark is drawn in each of its boxes."""
    root = ElementTree.fromstring(svg(picture(searched(60))))
    marks = {path.get("id"): path.get("d") for path in root.iter(f"{SVG}path") if path.get("id")}
    assert len(set(marks.values())) == len(marks) > 2
    for box in boxes(root):
        if box.get("class") != "fold":
            assert box.find(f"{SVG}use").get("href") == f"#{box.get('class')}"  # pyright: ignore


def test_what_a_model_wrote_stays_text() -> None:
    wild = "<script>alert(1)</script> & ]]> \x00\x1b[31m \ud800 \"quoted\" 'x'"
    drawn = picture([child("a", text=wild), child("b", "a", status=Status.FAILED, reason=wild)])
    picture_ = svg(drawn)
    root = ElementTree.fromstring(picture_.encode())
    assert not list(root.iter(f"{SVG}script"))
    assert "<script>" in "".join(root.itertext())


def test_500_thoughts_stay_small_and_on_a_page() -> None:
    thoughts = searched(500)
    drawn = svg(picture(thoughts))
    assert len(drawn.encode()) < 120_000
    root = ElementTree.fromstring(drawn)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in boxes(root):
        x, y = map(float, re.findall(r"[\d.]+", box.get("transform", "")))
        assert 0 <= x <= width
        assert 60 <= y <= height
    assert len(svg(picture(thoughts, everything=True)).encode()) < 400_000


def test_the_svg_needs_nothing_from_elsewhere_and_comes_out_the_same() -> None:
    thoughts = searched(80)
    drawn = svg(picture(thoughts))
    assert drawn == svg(picture(thoughts))
    assert not re.search(r"url\(|https?://(?!www\.w3\.org/2000/svg)|@import|@font-face", drawn)
    assert '<rect class="page"' in drawn  # a page of its own: readable on dark ground too


# Mermaid


def test_mermaid_has_a_line_for_each_item_and_each_edge() -> None:
    thoughts = [
        child("end"), child("b", "end"), child("c", "end"),
        child("d", "b", "c", kind="aggregate"),
        child("e", "b", status=Status.PRUNED, judgement=cut("deceit", 0.9)),
    ]  # fmt: skip
    chart, edges = mermaid(picture(thoughts, "it's a run"))
    lines = chart.splitlines()
    assert lines[:4] == ["---", "title: 'it''s a run'", "---", "flowchart TD"]
    assert edges == 5 == sum("->" in line for line in lines)
    assert sum(line.endswith(":::kept") for line in lines) == 4
    (dead,) = [line for line in lines if line.endswith(":::cut")]
    assert "deceit posterior 0.90" in dead
    assert not re.search(r"\bend\b(?!\")", re.sub(r'".*?"', "", chart))  # a word of Mermaid's


def test_mermaid_labels_hold_nothing_that_mermaid_reads() -> None:
    wild = 'a"];b-->c;%%x `*_<b>&#35; end\n---\n{{ }}'
    chart, _ = mermaid(picture([child("a", text=wild)]))
    (node,) = [line for line in chart.splitlines() if line.startswith("  n0")]
    label = node[node.index('"') + 1 : node.rindex('"')]
    assert not set(re.sub(r"#\d+;|<br/>", "", label)) & set('"<>`*_{}[]%;#&')


def test_a_folded_run_of_500_fits_what_github_draws() -> None:
    chart, edges = mermaid(picture(searched(500)))
    assert edges <= MOST_EDGES
    assert len(chart) < 50_000
