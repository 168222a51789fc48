"""A layered layout of a directed acyclic graph, after Sugiyama, Tagawa and Toda (1981).

Boxes stand in layers, each edge pointing to a later layer; the order within a layer keeps edges
from crossing, and boxes are pulled towards those that they are joined to. Pure arithmetic: nothing
here knows what is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Layout", "Point", "layered"]

Point = tuple[float, float]

_ROUNDS = 12
"""Sweeps over the layers, for the order and for the places."""
_THREAD = 8.0
"""Room across that an edge takes where it passes a layer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each box stands, and the points that each edge passes. ``along`` runs from layer to
    layer, ``across`` within one."""

    boxes: tuple[Point, ...]
    """The middle of each box: (along, across)."""
    edges: tuple[tuple[Point, ...], ...]
    """From the side of the first box to the side of the second."""
    along: float
    across: float
    """The size of the whole."""


def layered(
    sizes: Sequence[Point],
    edges: Sequence[tuple[int, int]],
    pulls: Sequence[float],
    *,
    gap: float,
    layer_gap: float,
) -> Layout:
    """Place boxes of ``sizes`` (along, across), joined by ``edges`` of their numbers.

    ``sizes`` come in a good order to begin with, a parent before its children. ``pulls`` (above 0)
    say how strongly each box holds its place and draws its neighbours: those that pull more stand
    straight, and the others make room. ``gap`` is the least room between boxes of a layer,
    ``layer_gap`` that between layers.
    """
    if not sizes:
        return Layout((), (), 0.0, 0.0)
    layer = _layers(len(sizes), edges)
    breadth = [across for _, across in sizes]
    pull = list(pulls)
    paths: list[list[int]] = []
    for start, end in edges:
        path = [start]
        for between in range(layer[start] + 1, layer[end]):
            path.append(len(layer))
            layer.append(between)
            breadth.append(_THREAD)
            pull.append(min(pulls[start], pulls[end]))
        paths.append([*path, end])
    above: list[list[int]] = [[] for _ in layer]
    below: list[list[int]] = [[] for _ in layer]
    for path in paths:
        for one, two in pairwise(path):
            below[one].append(two)
            above[two].append(one)
    layers = _ordered(layer, above, below)
    across = _placed(layers, above, below, breadth, pull, gap)
    depth = [max((sizes[n][0] for n in row if n < len(sizes)), default=0.0) for row in layers]
    start_of = [0.0]
    for size in depth:
        start_of.append(start_of[-1] + size + layer_gap)

    def bends(path: list[int]) -> tuple[Point, ...]:
        first, last = path[0], path[-1]
        points = [(start_of[layer[first]] + sizes[first][0], across[first])]
        for n in path[1:-1]:
            points += [
                (start_of[layer[n]], across[n]),
                (start_of[layer[n]] + depth[layer[n]], across[n]),
            ]
        return (*points, (start_of[layer[last]], across[last]))

    return Layout(
        boxes=tuple((start_of[layer[n]] + sizes[n][0] / 2, across[n]) for n in range(len(sizes))),
        edges=tuple(bends(path) for path in paths),
        along=start_of[-1] - layer_gap,
        across=max(across[n] + breadth[n] / 2 for n in range(len(layer))),
    )


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: one beyond the last of its parents."""
    waits = [0] * count
    children: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        waits[end] += 1
        children[start].append(end)
    layer = [0] * count
    ready = [n for n in range(count) if not waits[n]]
    for n in ready:
        for child in children[n]:
            layer[child] = max(layer[child], layer[n] + 1)
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    if len(ready) < count:
        raise ValueError("the graph has a cycle: it cannot stand in layers")
    return layer


def _ordered(
    layer: Sequence[int], above: Sequence[list[int]], below: Sequence[list[int]]
) -> list[list[int]]:
    """The layers with few crossings: barycentres, downwards and upwards in turn."""
    layers: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for n in _depth_first(above, below):
        layers[layer[n]].append(n)
    best, fewest = [list(row) for row in layers], _crossings(layers, below)
    for turn in range(_ROUNDS):
        if not fewest:
            break
        near = below if turn % 2 else above
        for row in reversed(layers) if turn % 2 else layers:
            place = {n: i for other in layers for i, n in enumerate(other)}
            here = {n: i for i, n in enumerate(row)}
            row.sort(
                key=lambda n, here=here, place=place: (
                    sum(place[m] for m in near[n]) / len(near[n]) if near[n] else here[n],
                    here[n],
                )
            )
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in layers], crossings
    return best


def _depth_first(above: Sequence[list[int]], below: Sequence[list[int]]) -> list[int]:
    """Boxes in the order in which one walks a tree, which then has no crossings."""
    found: list[int] = []
    seen: set[int] = set()
    todo = [n for n in range(len(above)) if not above[n]]
    todo.reverse()
    while todo:
        n = todo.pop()
        if n not in seen:
            seen.add(n)
            found.append(n)
            todo += reversed(below[n])
    return found


def _crossings(layers: Sequence[Sequence[int]], below: Sequence[list[int]]) -> int:
    """How many pairs of edges cross, by counting inversions with a Fenwick tree."""
    crossings = 0
    for row, following in pairwise(layers):
        place = {n: i for i, n in enumerate(following, 1)}
        tree = [0] * (len(following) + 1)
        passed = 0
        for n in row:
            ends = sorted(place[m] for m in below[n])
            for end in ends:
                i, before = end, 0
                while i:
                    before += tree[i]
                    i &= i - 1
                crossings += passed - before
            for end in ends:
                passed += 1
                while end < len(tree):
                    tree[end] += 1
                    end += end & -end
    return crossings


def _placed(
    layers: Sequence[Sequence[int]],
    above: Sequence[list[int]],
    below: Sequence[list[int]],
    breadth: Sequence[float],
    pull: Sequence[float],
    gap: float,
) -> list[float]:
    """A place across for each box: near its neighbours, and apart from those beside it."""
    across = [0.0] * len(breadth)
    for row in layers:
        middle = 0.0
        for n in row:
            across[n] = middle + breadth[n] / 2
            middle += breadth[n] + gap
    for turn in range(2 * _ROUNDS + 1):
        up, last = turn % 2 == 1, turn == 2 * _ROUNDS
        for row in reversed(layers) if up else layers:
            wanted: list[float] = []
            for n in row:
                # Last of all, ends follow their parents: nobody else stands on their place.
                near = (below[n] or above[n]) if up else (above[n] or below[n])
                near = [] if last and below[n] else near
                weight = sum(pull[m] for m in near)
                middle = sum(pull[m] * across[m] for m in near)
                wanted.append(middle / weight if near else across[n])
            for n, place in zip(row, _apart(row, wanted, breadth, pull, gap), strict=True):
                across[n] = place
    left = min(across[n] - breadth[n] / 2 for n in range(len(across)))
    return [place - left for place in across]


def _apart(
    row: Sequence[int],
    wanted: Sequence[float],
    breadth: Sequence[float],
    pull: Sequence[float],
    gap: float,
) -> list[float]:
    """The places nearest to ``wanted`` (least squares, by ``pull``) at which no two boxes touch.

    With the room between neighbours taken off, places only have to rise: isotonic regression, by
    pooling adjacent violators.
    """
    offsets = [0.0]
    for one, two in pairwise(row):
        offsets.append(offsets[-1] + (breadth[one] + breadth[two]) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # place, pull, boxes
    for n, want, offset in zip(row, wanted, offsets, strict=True):
        place, weight, count = want - offset, pull[n], 1
        while pools and pools[-1][0] > place:
            before, heavy, many = pools.pop()
            place = (before * heavy + place * weight) / (heavy + weight)
            weight, count = heavy + weight, many + count
        pools.append((place, weight, count))
    places = [place for place, _, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]
