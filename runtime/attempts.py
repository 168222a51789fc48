"""All tries at one thought: intent, generation, verdict, and the way back to an accepted prefix."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..agents.machines import Work
from ..agents.operations import Ask, write_prompt
from ..agents.prompt import Special
from ..agents.spec import AgentSpec
from ..agents.thought import Scene, Status, Thought, thought_id
from ..gates.canonical import canonical_json, digest
from ..gates.control import BAN, Control, forced_ids, tightened
from ..gates.evidence import Evidence
from ..gates.gate import decide
from ..gates.policy import Policy, Scope
from ..gates.retry import BackUp, back_up
from ..gates.verdict import Action, Broken, Judgement, Verdict
from ..gates.vocabulary import Scheme
from .decoding import Decoding, Origin
from .engines.protocol import Engine, RequestError
from .ledger.events import ModelIntent, Retry, Switch, ThoughtRecord
from .logs import get_logger
from .recording import Recording, reason, record
from .scheduler import Halt
from .steering import Steering

__all__ = ["Attempts"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Try:
    """One try: what it begins with, and what came of it."""

    id: str
    seed: int
    attempt: int
    origin: Origin
    bounds: Mapping[str, Control]
    """Upper bounds on the controls, from the tries before and from regrowing."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Asks the model for one run's thoughts."""

    agent: AgentSpec
    policy: Policy
    engine: Engine
    context: str | None
    seed: int
    recording: Recording

    async def ask(self, work: Work, operation: Ask) -> Sequence[Thought]:
        """Every try at this piece of work, the one that counts last."""
        scene = self.recording.scene(work.parents)
        try:
            if operation.unless is not None and operation.unless(scene):
                return work.parents
            pieces = write_prompt(operation.prompt, scene)
            bos = self.engine.info.bos
            prompt = tuple(self.engine.encode([Special(bos), *pieces] if bos else pieces))
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        bounds = self._banned() if work.banned else {}
        controls = tightened(self.policy.controls(self.context), bounds)
        forced = tuple(forced_ids(controls, self.engine.info.vocabulary))
        origin = Origin(prompt, controls, forced={0: forced} if forced else {})
        tries: list[Thought] = []
        while True:
            now = self._try(work, operation, origin, len(tries), bounds)
            thought, back = await self._perform(work, operation, scene, now)
            tries.append(thought)
            if back is None or not self.recording.spending.admits_retry():
                return tries
            again, decoding = back
            bounds = tightened(bounds, again.controls)
            origin = decoding.kept(again.token, bounds)
            following = self._try(work, operation, origin, len(tries), bounds)
            tries[-1] = await self._go_back(thought, again, decoding, following)

    def _banned(self) -> Mapping[str, Control]:
        tags = self.engine.info.vocabulary.vocabulary.tags
        return {tag.name: BAN for tag in tags if tag.scheme is not Scheme.DOCUMENT}

    def _try(
        self,
        work: Work,
        operation: Ask,
        origin: Origin,
        attempt: int,
        bounds: Mapping[str, Control],
    ) -> _Try:
        id = thought_id(
            work.step,
            tuple(parent.id for parent in work.parents),
            prompt=list(origin.ids),
            sampling=asdict(operation.sampling or self.agent.sampling),
            controls={tag: str(control) for tag, control in origin.controls.items()},
            model=self.engine.info.model_digest,
            attempt=attempt,
            index=work.index,
        )
        return _Try(id, int(digest([self.seed, id])[:15], 16), attempt, origin, bounds)

    async def _perform(
        self, work: Work, operation: Ask, scene: Scene, now: _Try
    ) -> tuple[Thought, tuple[BackUp, Decoding] | None]:
        """One try: intent, generation, posterior, verdict, record; and the way back, if any."""
        recording, sampling = self.recording, operation.sampling or self.agent.sampling
        thought = recording.made(work, id=now.id, attempt=now.attempt)
        await recording.log.intend(
            ModelIntent(
                thought=now.id,
                operation=operation.name,
                parents=thought.parents,
                prompt_ids=now.origin.ids,
                prompt_text=self.engine.decode(now.origin.ids),
                sampling=sampling,
                controls=now.origin.controls,
                seed=now.seed,
                attempt=now.attempt,
                accepted=len(now.origin.tokens),
            )
        )
        began = time.monotonic()
        decoding = Decoding(
            self.engine,
            self.policy,
            self.context,
            scene,
            sampling,
            now.origin,
            now.attempt,
            steering=self._steering(operation, now.bounds),
            seed=lambda token: self._seed_at(now, token),
            switched=lambda switch: self._switched(thought, switch),
        )
        back: BackUp | None = None
        try:
            await decoding.run()
            evidence, judgement, scope = await self._judge(operation, decoding, now.attempt)
            if isinstance(judgement, Verdict) and judgement.action is Action.RESAMPLE:
                back = self._way_back(judgement, decoding)
        except Exception as error:  # whatever an engine or a gate raises fails this branch alone
            return await self._failed(work, thought, decoding, error), None
        thought = replace(
            self._written(thought, decoding),
            judgement=judgement,
            token_ids=evidence.token_ids,
            status=_status(judgement),
            reason=judgement.reason if isinstance(judgement, Broken) else None,
        )
        if operation.parse is not None and thought.lives:
            thought = _parsed(thought, operation.parse)
        await recording.log.judge(
            replace(
                self._record(thought, work, decoding),
                evidence=evidence,
                latency_s=time.monotonic() - began,
                scope=scope,
            )
        )
        _log.info(
            "thought judged", thought=now.id, operation=operation.name, action=judgement.action
        )
        recording.remember(thought)
        if judgement.action is Action.ESCALATE:
            await recording.log.escalate(now.id, "a rule asks for a person")
        if judgement.action is Action.HALT:
            raise Halt(thought)
        return thought, None if back is None else (back, decoding)

    async def _judge(
        self, operation: Ask, decoding: Decoding, attempt: int
    ) -> tuple[Evidence, Judgement, Scope]:
        """Evidence and verdict of a try, and the scope it was judged in."""
        if decoding.judgement is not None:
            return decoding.evidence(), decoding.judgement, "thought"
        broken_off = decoding.convicted or decoding.fault is not None
        scope: Scope = "thought"
        if broken_off:
            evidence = decoding.evidence()
        else:
            evidence = await decoding.weighed()
            if operation.calls is not None and operation.calls(decoding.text.strip()) is not None:
                scope = "action"
        judgement = decide(
            self.policy,
            evidence,
            self.engine.info.vocabulary,
            context=self.context,
            scope=scope,
            attempt=attempt,
        )
        if broken_off and judgement.action.keeps:
            raise RuntimeError("what was broken off passes the gate")
        return evidence, judgement, scope

    def _steering(self, operation: Ask, bounds: Mapping[str, Control]) -> Steering | None:
        if operation.steer is None:
            return None
        vocabulary = self.engine.info.vocabulary
        return Steering(operation, self.policy, self.context, vocabulary, bounds)

    def _seed_at(self, now: _Try, token: int) -> int:
        """The try's own seed where it begins, and one of its own for each switch."""
        if token == len(now.origin.tokens):
            return now.seed
        return int(digest([self.seed, now.id, token])[:15], 16)

    async def _switched(self, thought: Thought, switch: Switch) -> None:
        prompt = self.engine.decode(switch.prompt_ids)
        await self.recording.log.switch(thought.id, thought.attempt, switch, prompt)
        _log.info("controls switched", thought=thought.id, token=switch.token)

    # Going back

    def _way_back(self, verdict: Verdict, decoding: Decoding) -> BackUp:
        return back_up(
            verdict,
            self.policy,
            self.context,
            self.engine.info.vocabulary,
            [token.id for token in decoding.tokens],
            [token.text for token in decoding.tokens],
        )

    async def _go_back(
        self, thought: Thought, again: BackUp, decoding: Decoding, following: _Try
    ) -> Thought:
        """Record that a try gives way to another one, before that is asked for."""
        dropped = decoding.tokens[again.token :]
        retry = Retry(
            thought=thought.id,
            attempt=thought.attempt,
            following=following.id,
            token=again.token,
            back_to=again.boundary,
            discarded=len(dropped),
            text="".join(token.text for token in dropped),
            cause=again.cause,
            controls=following.origin.controls,
            seed=following.seed,
        )
        await self.recording.log.back_up(retry)
        _log.info("thought backs up", thought=thought.id, token=again.token)
        return self.recording.remember(replace(thought, reason=retry.reason))

    # What is written down

    async def _failed(
        self, work: Work, thought: Thought, decoding: Decoding, error: Exception
    ) -> Thought:
        _log.warning("model call failed", thought=thought.id, reason=reason(error))
        failed = replace(
            self._written(thought, decoding),
            status=Status.FAILED,
            reason=reason(error),
            hopeless=isinstance(error, RequestError),
        )
        await self.recording.log.judge(self._record(failed, work, decoding))
        return self.recording.remember(failed)

    def _written(self, thought: Thought, decoding: Decoding) -> Thought:
        return replace(
            thought,
            text=decoding.text.strip(),
            tokens=decoding.fresh,
            spent_after=decoding.spent_after,
        )

    def _record(self, thought: Thought, work: Work, decoding: Decoding) -> ThoughtRecord:
        # Unstripped, as the evidence's offsets count.
        return replace(
            record(thought, work.index),
            text=decoding.text,
            accepted=len(decoding.origin.tokens),
        )


def _status(judgement: Judgement) -> Status:
    if judgement.action is Action.ESCALATE:
        return Status.ESCALATED
    return Status.KEPT if judgement.action.keeps else Status.PRUNED


def _parsed(thought: Thought, parse: Callable[[str], Any]) -> Thought:
    try:
        value = parse(thought.text)
        canonical_json(value)  # what the ledger cannot hold is rubbish too
        return replace(thought, value=value)
    except Exception as error:
        return replace(
            thought, status=Status.FAILED, reason=f"the text does not parse: {reason(error)}"
        )
