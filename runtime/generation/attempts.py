"""All tries at one thought: intent, generation, verdict, and the way back to an accepted prefix."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...agents.errors import reason
from ...agents.functions import called, holds
from ...agents.plans.machines import Work
from ...agents.plans.operations import Ask
from ...agents.prompt import Special
from ...agents.spec import AgentSpec
from ...agents.template import ask_again, write_prompt
from ...agents.thought import Scene, Status, Thought, thought_id
from ...agents.tool import Call, read_call
from ...gates.approval import Approval
from ...gates.canonical import digest, recordable
from ...gates.control import BAN, Control, forced_ids, tightened
from ...gates.evidence import Evidence
from ...gates.gate import judge
from ...gates.policy import Policy
from ...gates.retry import BackUp, back_up
from ...gates.verdict import Action, Broken, Judgement, Verdict
from ...gates.vocabulary import Scheme
from ..engines.limits import check_length
from ..engines.protocol import Engine, EngineError, RequestError
from ..executor.recording import Recording, record
from ..executor.scheduler import Halt
from ..ledger.errors import LedgerError
from ..ledger.events import ModelIntent, Retry, Switch, ThoughtRecord
from ..logs import get_logger
from ..recovery.recall import Recall
from .decoding import Decoding
from .switches import Steering
from .trail import Origin, Trail

__all__ = ["Attempts"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Try:
    """One try: what it begins with, and what it is known by."""

    id: str
    seed: int
    attempt: int
    """How many came before, those included that were lost with their process."""
    retries: int
    """How many of them the gate sent back."""
    origin: Origin
    bounds: Mapping[str, Control]
    """Upper bounds on the controls, from the tries before and from regrowing."""


class _Judged(NamedTuple):
    """A try as it was read and judged."""

    evidence: Evidence
    judgement: Judgement
    call: Call | None = None
    """What it was judged for in scope ``action``; None where it was judged as a thought."""
    unread: str | None = None
    """Why no call could be read from a finished text."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Asks the model for one run's thoughts."""

    agent: AgentSpec
    policy: Policy
    engine: Engine
    model: str
    """The model's digest, as the run's first event has it."""
    context: str | None
    seed: int
    recording: Recording

    @property
    def recall(self) -> Recall:
        """What a resumed run has behind it."""
        return self.recording.recall

    async def ask(self, work: Work, operation: Ask) -> Sequence[Thought]:
        """Every try at this piece of work, the one that counts last."""
        parents = work.parents if work.mends is None else work.parents[:-1]
        scene = self.recording.scene(parents)
        try:
            unless = operation.unless if work.mends is None else None
            if unless is not None and holds(unless, scene):
                return work.parents
            prompt = self._prompt(work, operation, scene)
        except Exception as error:
            if work.index > 0 and work.mends is None:
                return []  # it would fail as its first sibling does, which says why
            why, again = reason(error), work.mends is not None
            return [await self.recording.failed(work, why, hopeless=not again)]
        bounds = self._banned() if work.banned else {}
        controls = tightened(self.policy.controls(self.context), bounds)
        forced = tuple(forced_ids(controls, self.engine.info.vocabulary))
        origin = Origin(prompt, controls, forced={0: forced} if forced else {})
        tries: list[Thought] = []
        attempt = retries = 0
        while True:
            now = self._try(work, operation, origin, attempt, retries, bounds)
            while self.recall.lost(now.id):
                attempt += 1
                now = self._try(work, operation, origin, attempt, retries, bounds)
            if now.id in self.recall:
                thought, trail = await self._remembered(work, operation, now)
            else:
                thought, trail = await self._perform(work, operation, scene, now)
            tries.append(thought)
            if trail is None:
                return tries
            attempt += 1
            approval = self._approval(now, thought)
            if approval is not None:
                ended = self.recall.ended(thought.id)
                origin = trail.approved(approval, bounds, ended=ended)
                following = self._try(work, operation, origin, attempt, retries, bounds)
                tries[-1] = await self._go_on(thought, following)
                continue
            if not await self._may_retry(thought):
                return tries
            again = self._way_back(thought, trail)
            bounds = tightened(bounds, again.controls)
            origin = trail.kept(again.token, bounds)
            retries += 1
            following = self._try(work, operation, origin, attempt, retries, bounds)
            tries[-1] = await self._go_back(thought, again, trail, following)

    def _prompt(self, work: Work, operation: Ask, scene: Scene) -> tuple[int, ...]:
        """Token ids of what is asked. Raises what a user's function raises, and
        :class:`RequestError` where it can never fit."""
        pieces = write_prompt(operation.prompt, scene)
        if work.mends is not None:
            pieces = ask_again(pieces, work.mends)
        info = self.engine.info
        prompt = tuple(self.engine.encode([Special(info.bos), *pieces] if info.bos else pieces))
        check_length(info, len(prompt), (operation.sampling or self.agent.sampling).max_tokens)
        return prompt

    def _banned(self) -> Mapping[str, Control]:
        """A ban on every tag, but for those that a lock forces: to lift that would loosen it."""
        tags = self.engine.info.vocabulary.vocabulary.tags
        controls, locked = self.policy.controls(self.context), self.policy.locked
        forced = {tag for tag in locked if controls[tag].kind == "force"}
        return {
            tag.name: BAN
            for tag in tags
            if tag.scheme is not Scheme.DOCUMENT and tag.name not in forced
        }

    def _try(
        self,
        work: Work,
        operation: Ask,
        origin: Origin,
        attempt: int,
        retries: int,
        bounds: Mapping[str, Control],
    ) -> _Try:
        id = thought_id(
            work.step,
            tuple(parent.id for parent in work.parents),
            prompt=list(origin.ids),
            sampling=(operation.sampling or self.agent.sampling).as_json(),
            controls={tag: str(control) for tag, control in origin.controls.items()},
            model=self.model,
            attempt=attempt,
            index=work.index,
        )
        seed = int(digest([self.seed, id])[:15], 16)
        return _Try(id, seed, attempt, retries, origin, bounds)

    async def _perform(
        self, work: Work, operation: Ask, scene: Scene, now: _Try
    ) -> tuple[Thought, Trail | None]:
        """One try: intent, generation, posterior, verdict, record; and, where it is to be tried
        again, what it left behind."""
        thought = self.recording.made(work, id=now.id, attempt=now.attempt)
        log = self.recording.log
        try:
            await log.intend(self._intent(operation, thought, now))
        except asyncio.CancelledError as stop:
            text = "".join(token.text for token in now.origin.tokens)
            thought = replace(thought, text=text.strip())
            await self._stopped(thought, self._record(thought, work, now, text), stop)
            raise
        # What it takes to write a thought is gone before anybody waits for the ledger again.
        thought, judged, trail = await self._write(work, operation, scene, thought, now)
        try:
            await log.judge(judged)
        except asyncio.CancelledError as stop:
            if stop.args:
                await self.recording.drop([self.recording.remember(thought)], str(stop.args[0]))
            raise
        if thought.judgement is not None:
            action = thought.judgement.action
            _log.info("thought judged", thought=now.id, operation=operation.name, action=action)
        return await self._settled(thought), trail

    def _intent(self, operation: Ask, thought: Thought, now: _Try) -> ModelIntent:
        return ModelIntent(
            thought=now.id,
            operation=operation.name,
            parents=thought.parents,
            prompt_ids=now.origin.ids,
            prompt_text=self.engine.decode(now.origin.ids),
            sampling=operation.sampling or self.agent.sampling,
            controls=now.origin.controls,
            seed=now.seed,
            attempt=now.attempt,
            accepted=len(now.origin.tokens),
        )

    async def _write(
        self, work: Work, operation: Ask, scene: Scene, thought: Thought, now: _Try
    ) -> tuple[Thought, ThoughtRecord, Trail | None]:
        """Let the model write the thought and the gate judge it: the thought, its record, and what
        it leaves behind where it is to be tried again."""
        began = time.monotonic()
        decoding = Decoding(
            self.engine,
            self.policy,
            self.context,
            scene,
            operation.sampling or self.agent.sampling,
            now.origin,
            now.retries,
            steering=self._steering(operation, now.bounds),
            seed=lambda token: self._seed_at(now, token),
            switched=lambda switch: self._switched(thought, switch),
        )
        limit = asyncio.timeout(operation.timeout)
        try:
            async with limit:
                await decoding.run()
                read = await self._judge(operation, decoding, now.retries)
        except asyncio.CancelledError as stop:
            written = _written(thought, decoding)
            await self._stopped(written, self._record(written, work, now, decoding.text), stop)
            raise
        except Exception as error:  # whatever an engine or a gate raises fails this branch alone
            late = EngineError(f"the model gave no answer within {operation.timeout} s")
            failed = _failed(_written(thought, decoding), late if limit.expired() else error)
            return failed, self._record(failed, work, now, decoding.text), None
        judgement, call = read.judgement, read.call
        thought = _written(
            thought,
            decoding,
            judgement=judgement,
            token_ids=read.evidence.token_ids,
            status=_status(judgement),
            reason=judgement.reason if isinstance(judgement, Broken) else None,
        )
        waits = thought.status is Status.ESCALATED
        cut = waits and decoding.cut
        if (thought.lives or waits) and not cut:
            if read.unread is not None:
                thought = _unreadable(thought, read.unread)
            elif operation.parse is not None:
                thought = _parsed(thought, operation.parse)
        latency = time.monotonic() - began
        judged = self._record(
            thought,
            work,
            now,
            decoding.text,
            evidence=read.evidence,
            latency_s=latency,
            scope="thought" if call is None else "action",
            call=call,
            cut=cut,
            ended=cut and decoding.ended,
        )
        if call is not None:
            self.recording.calls[thought.id] = call.digest
        return thought, judged, decoding.trail if _resampled(judgement) else None

    async def _remembered(
        self, work: Work, operation: Ask, now: _Try
    ) -> tuple[Thought, Trail | None]:
        """The same for a try that the ledger has."""
        made = self.recording.made(work, id=now.id, attempt=now.attempt)
        thought = self.recall.thought(made)
        _log.info("thought recalled", thought=now.id, operation=operation.name)
        call = self.recall.judged_call(thought.id, lambda: read_call(operation.calls, thought.text))
        if call is not None:
            self.recording.calls[thought.id] = call
        thought = await self._settled(thought)
        if not _resampled(thought.judgement) and self._approval(now, thought) is None:
            return thought, None
        return thought, self.recall.trail(thought.id, now.origin, self.engine.info.vocabulary)

    async def _settled(self, thought: Thought) -> Thought:
        """Act on the verdict of a thought that is recorded."""
        self.recording.remember(thought)
        if thought.status is Status.ESCALATED:
            unread = "" if thought.reason is None else "; its text cannot be read"
            await self.recording.log.escalate(thought.id, f"a rule asks for a person{unread}")
        if thought.judgement is not None and thought.judgement.action is Action.HALT:
            raise Halt(thought)
        return thought

    async def _judge(self, operation: Ask, decoding: Decoding, retries: int) -> _Judged:
        """Read and judge a try: for its call, where it is whole and asks for one."""
        if decoding.judgement is not None:
            return _Judged(decoding.evidence(), decoding.judgement)
        broken_off = decoding.convicted or decoding.fault is not None
        call: Call | None = None
        unread: str | None = None
        if broken_off:
            evidence = decoding.evidence()
        else:
            evidence = await decoding.weighed()
            try:
                call = read_call(operation.calls, decoding.text.strip())
            except Exception as error:  # a rule may ask for a person all the same
                unread = f"its call cannot be read: {reason(error)}"
        if call is None:
            judgement = decoding.judged(evidence)
        else:  # rules that no token was held against
            judgement = judge(
                self.policy,
                evidence,
                self.engine.info.vocabulary,
                context=self.context,
                scope="action",
                attempt=retries,
                approved=decoding.origin.approved,
            )
        if broken_off and judgement.action.keeps:
            raise RuntimeError("what was broken off passes the gate")
        return _Judged(evidence, judgement, call, unread)

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

    async def _may_retry(self, thought: Thought) -> bool:
        """Whether there is a budget for another try; where there is none, that is recorded, since
        it depends on what else is in flight."""
        if self.recall.backed_up(thought.id):
            return True
        if self.recall.declined(thought.id):
            return False
        if self.recording.spending.admits_retry():
            return True
        await self.recording.log.note("declined", {"for": "want of a budget"}, thought.id)
        return False

    def _way_back(self, thought: Thought, trail: Trail) -> BackUp:
        verdict = thought.judgement
        assert isinstance(verdict, Verdict)
        return back_up(
            verdict,
            self.policy,
            self.context,
            self.engine.info.vocabulary,
            [token.id for token in trail.tokens],
            [token.text for token in trail.tokens],
        )

    async def _go_back(
        self, thought: Thought, again: BackUp, trail: Trail, following: _Try
    ) -> Thought:
        """Record that a try gives way to another one, before that is asked for."""
        dropped = trail.tokens[again.token :]
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

    # Going on from what a person let pass

    def _approval(self, now: _Try, thought: Thought) -> Approval | None:
        """What a person let pass in an escalated thought that goes on as another try: one that was
        broken off, that does not parse, or that another rule still stops. None where nobody did,
        and where the thought goes on as it is.

        Raises :class:`LedgerError` where the decision is on another rule than the one that asked.
        """
        decision = self.recall.decision(thought.id)
        if decision is None or not (decision.approve and decision.bound):
            return None
        verdict, history = thought.judgement, self.recall.history
        asked = verdict.cause if isinstance(verdict, Verdict) else None
        if asked is None or decision.rule not in (None, asked.rule):
            raise LedgerError(
                f"the decision on thought {thought.id} is on another rule than the one that asks: "
                f"see `secateur audit verify {history.run}`"
            )
        evidence = history.read(thought.id)
        rule = self.policy.rules_for(self.context)[asked.rule]
        approval = Approval(rule, len(evidence.token_ids))
        whole = thought.id not in history.cut and history.thoughts[thought.id].reason is None
        again = judge(
            self.policy,
            evidence,
            self.engine.info.vocabulary,
            context=self.context,
            scope="action" if thought.id in history.acting else "thought",
            attempt=now.retries,
            approved=(*now.origin.approved, approval),
        )
        return None if whole and again.action.keeps else approval

    async def _go_on(self, thought: Thought, following: _Try) -> Thought:
        """Record that an approved thought goes on as another try, before that is asked for."""
        verdict = thought.judgement
        assert isinstance(verdict, Verdict)
        assert verdict.cause is not None
        retry = Retry(
            thought=thought.id,
            attempt=thought.attempt,
            following=following.id,
            token=len(following.origin.tokens),
            back_to="thought",
            discarded=0,
            text="",
            cause=verdict.cause,
            controls=following.origin.controls,
            seed=following.seed,
            approved=True,
        )
        await self.recording.log.back_up(retry)
        _log.info("approved thought goes on", thought=thought.id, following=following.id)
        gone_on = replace(thought, status=Status.DROPPED, reason=retry.reason)
        return self.recording.remember(gone_on)

    # What is written down

    async def _stopped(
        self, thought: Thought, record: ThoughtRecord, stop: asyncio.CancelledError
    ) -> None:
        """Record what was written when nobody wanted it any more, with the tokens it took. Where
        the run itself was interrupted no reason is given, and the call stays open."""
        if stop.args:
            why = str(stop.args[0])
            await self.recording.log.judge(replace(record, status=Status.DROPPED, reason=why))
            self.recording.remember(replace(thought, status=Status.DROPPED, reason=why))

    def _record(
        self, thought: Thought, work: Work, now: _Try, text: str, **more: Any
    ) -> ThoughtRecord:
        """``text`` is unstripped, as the evidence's offsets count."""
        return record(
            thought,
            work.index,
            text=text,
            accepted=len(now.origin.tokens),
            retries=now.retries,
            approved=now.origin.approved,
            **more,
        )


def _written(thought: Thought, decoding: Decoding, **more: Any) -> Thought:
    return replace(
        thought,
        text=decoding.text.strip(),
        tokens=decoding.fresh,
        spent_after=decoding.spent_after,
        **more,
    )


def _failed(thought: Thought, error: Exception) -> Thought:
    why = reason(error)
    _log.warning("model call failed", thought=thought.id, reason=why)
    hopeless = isinstance(error, RequestError)
    return replace(thought, status=Status.FAILED, reason=why, hopeless=hopeless)


def _resampled(judgement: Judgement | None) -> bool:
    return isinstance(judgement, Verdict) and judgement.action is Action.RESAMPLE


def _status(judgement: Judgement) -> Status:
    if judgement.action is Action.ESCALATE:
        return Status.ESCALATED
    return Status.KEPT if judgement.action.keeps else Status.PRUNED


def _unreadable(thought: Thought, why: str) -> Thought:
    """A thought whose text is of no use has failed; where a rule asks for a person it waits."""
    if thought.status is Status.ESCALATED:
        return replace(thought, reason=why)
    return replace(thought, status=Status.FAILED, reason=why)


def _parsed(thought: Thought, parse: Callable[[str], Any]) -> Thought:
    try:
        value = called(parse, thought.text)
        recordable(value)  # what the ledger cannot hold is rubbish too
        return replace(thought, value=value)
    except Exception as error:
        return _unreadable(thought, f"the text does not parse: {reason(error)}")
