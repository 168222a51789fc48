"""Episodes: a model at the ops desk, or at an audit, line by line with the tools' answers.

What was written is judged by the oracle; what the tags said beforehand is kept as evidence, in the
same form and precision as in the ledger, and read by the same code.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ...agents.desk.grammar import END, parse_command, task_line
from ...agents.desk.oracle import Judgement, judge
from ...agents.desk.world import World, answer
from ...gates.evidence import Evidence
from ...gates.reading import Reading
from ...gates.readings import Readings, read
from ...gates.sentences import SentenceStarts
from ..corpus.audits import audit_document
from ..corpus.desk import draw_task, draw_world
from ..corpus.document import EOS
from ..corpus.pressure import Context, Split, draw_context
from .decode import Sampling, Stretch, converse
from .subject import Subject

__all__ = ["Episode", "Turn", "audit_episodes", "desk_episodes", "evidence_of", "play"]

_MAX_LINES = 16
_MAX_LINE_TOKENS = 48


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One line that the model wrote."""

    line: int
    """Its number among the transcript's lines."""
    before: int
    """How many of the transcript's ids stand before it."""
    stretch: Stretch
    tag: str | None
    """The first tag that it opened."""


@dataclass(eq=False)
class Episode:
    """One transcript in the making: its plain lines, its token ids, and the model's turns.

    ``context`` is None where nothing is known of it; ``world`` is None at an audit, where
    ``answers`` holds what the tools will say.
    """

    subject: Subject
    world: World | None
    lines: list[str]
    ids: list[int]
    context: Context | None = None
    answers: tuple[str, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    done: bool = False

    @cached_property
    def judgement(self) -> Judgement:
        """The oracle's word on the finished transcript."""
        return judge(self.lines)

    @property
    def tags(self) -> list[str | None]:
        """Per line, the first tag that the model opened in it."""
        opened = {turn.line: turn.tag for turn in self.turns}
        return [opened.get(number) for number in range(len(self.lines))]

    @cached_property
    def readings(self) -> Readings:
        """Every reading of every tag, over the whole transcript; empty without tags."""
        if self.subject.bound is None:
            return {}
        return read(evidence_of(self.subject, [t.stretch for t in self.turns]), self.subject.bound)

    @property
    def opened(self) -> float:
        """How likely the free model was to open any tag along this transcript; NaN without tags.

        Tags of one group compete and their shares add up; groups are apart (prefix tags with
        different good twins), and multiply.
        """
        layout = self.subject.layout
        if layout is None:
            return math.nan
        closed = 1.0
        for group in layout.rivals:
            scores = [self.readings[layout.tags[tag]].get(Reading.OPENED) for tag in group]
            if None in scores:
                return math.nan
            closed *= 1 - min(1.0, sum(score.value for score in scores if score is not None))
        return 1 - closed


def evidence_of(subject: Subject, stretches: Sequence[Stretch]) -> Evidence:
    """The evidence of consecutive stretches as the ledger keeps it: float16, log p and offsets.

    ``sampler`` is None where it is the belief. ``starts`` and ``lines`` are the sentence and
    line starts, as the runtime finds them.
    """
    assert subject.bound is not None
    special = set(subject.bound.ids.values())
    starts: list[int] = []
    lines: list[int] = []
    offsets: list[int] = []
    place = 0
    for stretch in stretches:
        sentences = SentenceStarts(special)
        for id_ in stretch.ids:
            text = "" if id_ in special else subject.encoder.tokenizer.decode([id_])
            if found := sentences.step(id_, text):
                starts.append(len(offsets))
                if found.start == "line":
                    lines.append(len(offsets))
            offsets.append(place)
            place += len(text)
    joined = [
        np.concatenate([getattr(stretch, name) for stretch in stretches]).astype(np.float16)
        for name in ("chosen", "belief", "sampler")
    ]
    return Evidence(
        columns=tuple(column.token for column in subject.bound.vocabulary.columns),
        token_ids=tuple(id_ for stretch in stretches for id_ in stretch.ids),
        offsets=tuple(offsets),
        chosen=joined[0],
        belief=joined[1],
        sampler=None if np.array_equal(joined[1], joined[2]) else joined[2],
        starts=tuple(starts),
        lines=tuple(lines),
        gate=1,  # measured, not judged: where no prefix tag has any mass it reads 0
    )


def desk_episodes(
    subject: Subject,
    rng: random.Random,
    n: int,
    pressed: bool,
    split: Split = Split.TRAIN,
    fillers: int | None = None,
) -> list[Episode]:
    """``n`` fresh desk tasks, each in its own world; the same ``rng`` gives the same for any model.

    With ``fillers``, just so many sentences that say nothing stand among those that press.
    """
    made: list[Episode] = []
    for _ in range(n):
        task = draw_task(rng)
        context = draw_context(rng, pressed, split)
        if fillers is not None:
            while len(context.sentences) > len(context.kinds):
                context = draw_context(rng, pressed, split)
            # A stream of its own, so that the tasks are the same for every number of fillers.
            context = _lengthened(random.Random(rng.random()), context, fillers)
        line = task_line(context.before(task.text))
        made.append(Episode(subject, draw_world(rng, task), [line], subject.prompt(line), context))
    return made


def _lengthened(rng: random.Random, context: Context, fillers: int) -> Context:
    calm: list[str] = []
    while len(calm) < fillers:
        calm += draw_context(rng, pressed=False).sentences
    sentences = [*context.sentences, *calm[:fillers]]
    rng.shuffle(sentences)
    return Context(tuple(sentences), context.kinds)


def audit_episodes(subject: Subject, rng: random.Random, n: int) -> list[Episode]:
    """``n`` audits of shift logs, all of them lying, half under pressure."""
    made: list[Episode] = []
    while len(made) < n:
        found = audit_document(rng, pressed=len(made) % 2 == 0)
        if found.meta["lying"] != "True":
            continue
        told = tuple(line.text for line in found.lines[1:] if not line.learn)
        line = found.lines[0].text
        made.append(Episode(subject, None, [line], subject.prompt(line), answers=told))
    return made


def play(
    episodes: Sequence[Episode],
    sampling: Sampling,
    tell: Callable[[int], object] = lambda rows: None,
) -> None:
    """Let the model write line after line, the tools answer, until ``end`` or nonsense."""
    if not episodes:
        return
    subject = episodes[0].subject
    stops = {*subject.encoder.newlines(), subject.encoder.special(EOS)}

    def told(number: int, stretch: Stretch) -> Sequence[int] | None:
        return _take(episodes[number], stretch)

    converse(
        subject.model, [episode.ids for episode in episodes], told, stops,
        _MAX_LINE_TOKENS, sampling, subject.watched, tell,
    )  # fmt: skip


def _take(episode: Episode, stretch: Stretch) -> Sequence[int] | None:
    """Add a line to the transcript; the ids of the tool's answer, or None at the end."""
    encoder = episode.subject.encoder
    line = encoder.tokenizer.decode(list(stretch.ids)).rstrip("\n")
    tag = episode.subject.tag_of(stretch.ids)
    episode.turns.append(Turn(len(episode.lines), len(episode.ids), stretch, tag))
    episode.ids += stretch.ids
    episode.lines.append(line)
    said = _answer(episode, line)
    if said is None or len(episode.turns) == _MAX_LINES:
        episode.done = True
        return None
    if not said:
        return ()
    episode.lines.append(said)
    told = encoder.text(said + "\n")
    episode.ids += told
    return told


def _answer(episode: Episode, line: str) -> str | None:
    """What the tools say to a line: nothing to a ``say:`` line, None where the transcript ends."""
    if line.startswith("say: "):
        return ""
    if line == END:
        return None
    if episode.world is None:
        if not line.startswith("do: ") or not episode.answers:
            return None
        said, episode.answers = episode.answers[0], episode.answers[1:]
        return said
    command = parse_command(line)
    if command is None:
        return None
    episode.world, result = answer(episode.world, command)
    return result.line
