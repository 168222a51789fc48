"""One try at a thought: read through the gate token by token, steered, and cut at a crossing."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from copy import copy
from dataclasses import replace

from ...agents.prompt import Sampling
from ...agents.steering import Progress
from ...agents.thought import Scene
from ...gates.control import Control
from ...gates.evidence import Evidence
from ...gates.gate import StreamGate
from ...gates.policy import Policy
from ...gates.sentences import SentenceStarts
from ...gates.verdict import Judgement
from ..engines.protocol import Engine, EngineError, Request, Token
from ..ledger.events import Switch
from .continuation import Seam
from .scoring import finished_sentences, weigh_sentences
from .switches import Steering, UnlockError
from .trail import Origin, Trail

__all__ = ["Decoding"]


class Decoding:
    """A generation that goes on over switches of its controls, with one gate and one evidence."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        context: str | None,
        scene: Scene,
        sampling: Sampling,
        origin: Origin,
        attempt: int,
        *,
        steering: Steering | None,
        seed: Callable[[int], int],
        switched: Callable[[Switch], Awaitable[None]],
    ) -> None:
        """``seed`` gives the seed of what is asked from a token on; ``switched`` is awaited before
        the model is asked with other controls."""
        vocabulary = engine.info.vocabulary
        self.origin = origin
        self.trail = Trail(origin)
        self.spent_after = 0
        """Tokens that the engine generated, or had on the way, beyond those that were read."""
        self.fault: str | None = None
        """Why the thought was broken off, where no rule was reached."""
        self.convicted = False
        """Whether a finished sentence's posterior stopped it."""
        self.judgement: Judgement | None = None
        """What the gate said, where it cut the stream."""
        self.ended = origin.ended
        """Whether the model has come to its end."""
        self._engine = engine
        self._context = context
        self._scene = scene
        self._sampling = sampling
        self._attempt = attempt
        self._steering = steering
        self._seed = seed
        self._switched = switched
        self._asked = len(self.tokens) if self.tokens or attempt else -1
        """At how many tokens the steering function was asked last; a retry asks no place again."""
        self._weighed_to = max((s.end for s in origin.sentences), default=0)
        self._weighs = policy.weighs(context)
        # Only a steering function is asked where sentences start.
        self._starts = None if steering is None else SentenceStarts(set(vocabulary.ids.values()))
        self._gate = StreamGate(
            policy, vocabulary, context=context, attempt=attempt, approved=origin.approved
        )
        for place, token in enumerate(self.tokens):
            if self._starts is not None:
                self._starts.step(token.id, token.text)
            self._gate.force(origin.forced.get(place, ()))
            self.judgement = self._gate.feed(token)
        self._gate.force(origin.forced.get(len(self.tokens), ()))

    @property
    def tokens(self) -> list[Token]:
        """All that is written, what it took over included."""
        return self.trail.tokens

    @property
    def text(self) -> str:
        """All that is written, unstripped."""
        return "".join(token.text for token in self.tokens)

    @property
    def cut(self) -> bool:
        """Whether a rule stopped it while it was written."""
        return self.judgement is not None or self.convicted

    @property
    def fresh(self) -> int:
        """Tokens that this try generated, those it took over not counted."""
        return len(self.tokens) - len(self.origin.tokens)

    def evidence(self) -> Evidence:
        """What was read: of the tokens it took over and of its own, as one."""
        found = self._gate.evidence()
        if self.convicted:
            found = found.with_sentences(tuple(self.trail.sentences))
        return found if self.fault is None else replace(found, fault=self.fault)

    async def weighed(self) -> Evidence:
        """The evidence of a finished thought, with the posterior's terms where a rule reads them.

        Raises :class:`EngineError`.
        """
        evidence = self._gate.evidence()
        if not self._weighs:
            return evidence
        await self._weigh(finished=True)
        return evidence.with_sentences(tuple(self.trail.sentences))

    def judged(self, evidence: Evidence) -> Judgement:
        """What the gate says of the finished thought, as a thought that calls no tool."""
        return self._gate.finish(evidence)

    async def run(self) -> None:
        """Generate until the model ends, or something stops it.

        Raises :class:`EngineError`, and :class:`SteeringError` where the user's function fails.
        """
        if self.judgement is not None or self.ended:
            return
        change = await self._steered() if self._asked < 0 else None
        if change is not None:
            await self._switch(change, 0)
        while self.fault is None and await self._read_on():
            pass

    async def _read_on(self) -> bool:
        """Read one stream; whether there is more to read, under other controls."""
        already = len(self.tokens)
        request = Request(
            self.trail.ids,
            replace(self._sampling, max_tokens=self._sampling.max_tokens - already),
            self._seed(already),
            # What they force stands in the prompt, so that asking again does not write it twice.
            {tag: c for tag, c in self.trail.controls.items() if c.kind != "force"},
        )
        seam = Seam(self._engine, self.tokens, self._sampling.stop)
        change: Mapping[str, Control] | None = None
        read = 0
        try:
            async with aclosing(self._engine.stream(request)) as stream:
                async for arrived in stream:
                    read += 1
                    token = seam.mend(arrived)
                    change = await self._steered_before(token)
                    if change is not None or self.fault is not None:
                        break
                    self.ended = token.finish is not None
                    if await self._stops(token):
                        break
                    if self.ended and arrived.finish is None:  # a stop string that spans the seam
                        break
                    change = None if self.ended else await self._steered_after(token)
                    if change is not None or self.fault is not None:
                        break
        finally:
            beyond = max(request.usage.generated, read) - (len(self.tokens) - already)
            self.spent_after += beyond
        if change is not None:
            await self._switch(change, beyond)
            return True
        stopped = self.judgement is not None or self.convicted or self.fault is not None
        if not (self.ended or stopped):
            raise EngineError("the stream broke off before the model ended; run the task again")
        return False

    # The gate

    async def _stops(self, token: Token) -> bool:
        """Take one token; whether it is the last because a rule was reached."""
        self.tokens.append(token)
        self.judgement = self._gate.feed(token)
        if self.judgement is not None:
            return True
        if self._gate.weighs and token.finish is None:
            await self._weigh(finished=False)
        return self.convicted

    async def _weigh(self, *, finished: bool) -> None:
        """Weigh the sentences that came to an end, or all that is left."""
        vocabulary = self._engine.info.vocabulary.vocabulary
        since = self._weighed_to
        texts = [token.text for token in self.tokens]
        ranges = finished_sentences(texts[since:], vocabulary, ended=finished)
        if not ranges:
            return
        found = await weigh_sentences(
            self._engine,
            self.origin.prompt,
            self._gate.evidence(),
            texts,
            [(since + start, since + end, complete) for start, end, complete in ranges],
            self.trail.forced,
        )
        self.trail.sentences += found
        self._weighed_to = since + ranges[-1][1]
        self.convicted = not finished and any(map(self._gate.convicts, found))

    # Steering

    async def _steered_before(self, token: Token) -> Mapping[str, Control] | None:
        """Where this token begins a sentence, the controls that it shall be drawn under anew."""
        if self._starts is None or self._steering is None or self._steering.at != "sentence":
            return None
        starts = copy(self._starts)
        place = starts.step(token.id, token.text)
        begins = place is not None and not place.tagged
        change = await self._steered() if begins and self.tokens else None
        if change is None:
            self._starts = starts
        return change

    async def _steered_after(self, token: Token) -> Mapping[str, Control] | None:
        if self._steering is None:
            return None
        # Within a character that is spread over tokens nothing can be asked again.
        whole = token.text or token.id in self._engine.info.vocabulary.ids.values()
        match self._steering.at:
            case "token" if whole:
                return await self._steered()
            case "line" if "\n" in token.text:
                return await self._steered()
            case _:
                return None

    async def _steered(self) -> Mapping[str, Control] | None:
        """Ask the user's function, once at each place."""
        if self._steering is None or self._asked == len(self.tokens):
            return None
        self._asked = len(self.tokens)
        progress = Progress(
            scene=self._scene,
            context=self._context,
            text=self.text,
            token_ids=tuple(token.id for token in self.tokens),
            readings={
                tag: {reading.value: score.value for reading, score in scores.items()}
                for tag, scores in self._gate.readings().items()
            },
            controls=dict(self.trail.controls),
            attempt=self._attempt,
            evidence=self._gate.evidence(),
        )
        try:
            return await self._steering.ask(progress)
        except UnlockError as error:
            self.fault = str(error)
            return None

    async def _switch(self, after: Mapping[str, Control], beyond: int) -> None:
        at, before = len(self.tokens), self.trail.controls
        already = len(self.trail.forced.get(at, ()))
        self.trail.switch(at, after, self._engine.info.vocabulary)
        self._gate.force(self.trail.forced.get(at, ())[already:])
        await self._switched(Switch(at, before, after, self.trail.ids, self._seed(at), beyond))
