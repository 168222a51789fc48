"""Performing one piece of work: ask and gate the model, or score, select, split, act."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..agents.machines import Work
from ..agents.operations import Act, Ask, KeepBest, KeepValid, Score, Split, write_prompt
from ..agents.prompt import Sampling, Special
from ..agents.spec import AgentSpec
from ..agents.thought import Scene, Status, Thought, thought_id
from ..agents.tool import Call, Tool, Workspace
from ..gates.canonical import canonical_json, digest
from ..gates.control import BAN, Control
from ..gates.errors import SecateurError
from ..gates.evidence import Evidence
from ..gates.gate import StreamGate, decide
from ..gates.policy import Policy, Scope
from ..gates.verdict import Action, Broken, Judgement
from ..gates.vocabulary import Scheme
from .engines.protocol import Engine, EngineError, Request, Token
from .ledger.events import ModelIntent, ThoughtRecord
from .ledger.ledger import RunLog
from .logs import get_logger
from .posterior import weigh
from .scheduler import Halt, Spending

__all__ = ["Performer"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Generation:
    """One model call, read to its end or to the crossing that cut it."""

    tokens: tuple[Token, ...]
    evidence: Evidence
    judgement: Judgement | None
    """Set where the gate cut the stream."""

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass(slots=True)
class Performer:
    """Performs the work of one run, each step recorded before it is acted upon."""

    agent: AgentSpec
    policy: Policy
    engine: Engine
    log: RunLog
    spending: Spending
    workspace: Workspace
    task: str
    context: str | None
    seed: int
    observe: Callable[[Thought], None]
    """Told of every thought as it is recorded, and again when it is scored or dropped."""
    thoughts: dict[str, Thought] = field(default_factory=dict)
    """All thoughts of the run by id, in the order in which they were made."""

    async def perform(self, work: Work) -> Sequence[Thought]:
        """What comes of the work. A branch that fails is a result; only the ledger and a verdict
        to halt stop the run."""
        match work.operation:
            case Ask() as operation:
                return await self._ask(work, operation)
            case Score() as operation:
                return await self._score(work, operation)
            case KeepBest() as operation:
                return await self._keep_best(work, operation)
            case KeepValid() as operation:
                return await self._keep_valid(work, operation)
            case Split() as operation:
                return await self._split(work, operation)
            case Act() as operation:
                return await self._act(work, operation)
            case unknown:
                raise TypeError(f"{type(unknown).__name__} is no operation that can be performed")

    def scene(self, parents: tuple[Thought, ...]) -> Scene:
        """The parents with all that led to the first of them."""
        line = [parents[0]]
        while line[-1].parents:
            line.append(self.thoughts[line[-1].parents[0]])
        return Scene(self.task, parents, tuple(reversed(line)), self.thoughts)

    async def place(self, thought: Thought, index: int, acted: str | None = None) -> Thought:
        """Record a thought that no model wrote; ``acted`` names the tool that it comes from."""
        await self.log.place(replace(_record(thought, index), acted=acted))
        _log.info("thought placed", thought=thought.id, operation=thought.operation, tool=acted)
        return self._remember(thought)

    # Asking the model

    async def _ask(self, work: Work, operation: Ask) -> Sequence[Thought]:
        scene = self.scene(work.parents)
        try:
            if operation.unless is not None and operation.unless(scene):
                return work.parents
            pieces = write_prompt(operation.prompt, scene)
            bos = self.engine.info.bos
            prompt = self.engine.encode([Special(bos), *pieces] if bos else pieces)
        except Exception as error:
            return [await self._failed(work, _reason(error))]
        controls = self._controls(work.banned)
        sampling = operation.sampling or self.agent.sampling
        tries: list[Thought] = []
        while True:
            thought = await self._try(work, operation, prompt, sampling, controls, len(tries))
            tries.append(thought)
            again = thought.judgement is not None and thought.judgement.action is Action.RESAMPLE
            if not again or not self.spending.admits_retry():
                return tries

    def _controls(self, banned: bool) -> Mapping[str, Control]:
        controls = dict(self.policy.controls(self.context))
        if banned:
            tags = self.engine.info.vocabulary.vocabulary.tags
            controls |= {tag.name: BAN for tag in tags if tag.scheme is not Scheme.DOCUMENT}
        return controls

    async def _try(
        self,
        work: Work,
        operation: Ask,
        prompt: list[int],
        sampling: Sampling,
        controls: Mapping[str, Control],
        attempt: int,
    ) -> Thought:
        """One attempt: intent, generation, posterior, verdict, record."""
        id = thought_id(
            work.step,
            tuple(parent.id for parent in work.parents),
            prompt=prompt,
            sampling=asdict(sampling),
            controls={tag: str(control) for tag, control in controls.items()},
            model=self.engine.info.model_digest,
            attempt=attempt,
            index=work.index,
        )
        seed = int(digest([self.seed, id])[:15], 16)
        thought = self._made(work, id=id, attempt=attempt)
        await self.log.intend(
            ModelIntent(
                thought=id,
                operation=operation.name,
                parents=thought.parents,
                prompt_ids=tuple(prompt),
                prompt_text=self.engine.decode(prompt),
                sampling=sampling,
                controls=controls,
                seed=seed,
                attempt=attempt,
            )
        )
        began = time.monotonic()
        scope: Scope = "thought"
        try:
            request = Request(tuple(prompt), sampling, seed, controls)
            made = await self._generate(request, attempt)
            evidence, judgement = made.evidence, made.judgement
            if judgement is None:
                if self._wants_posterior():
                    texts = [token.text for token in made.tokens]
                    evidence = await weigh(self.engine, prompt, evidence, texts)
                if operation.calls is not None and operation.calls(made.text.strip()) is not None:
                    scope = "action"
                judgement = self._decide(evidence, scope, attempt)
        except Exception as error:  # whatever an engine or a gate raises fails this branch alone
            _log.warning("model call failed", thought=id, reason=_reason(error))
            failed = replace(thought, status=Status.FAILED, reason=_reason(error))
            await self.log.judge(_record(failed, work.index))
            return self._remember(failed)
        thought = replace(
            thought,
            text=made.text.strip(),
            judgement=judgement,
            token_ids=evidence.token_ids,
            tokens=len(made.tokens),
            status=_status(judgement),
            reason=judgement.reason if isinstance(judgement, Broken) else None,
        )
        if operation.parse is not None and thought.lives:
            thought = _parsed(thought, operation.parse)
        record = replace(
            _record(thought, work.index),
            text=made.text,  # unstripped, as the evidence's offsets count
            evidence=evidence,
            latency_s=time.monotonic() - began,
            scope=scope,
        )
        await self.log.judge(record)
        _log.info("thought judged", thought=id, operation=operation.name, action=judgement.action)
        self._remember(thought)
        if judgement.action is Action.ESCALATE:
            await self.log.escalate(id, "a rule asks for a person")
        if judgement.action is Action.HALT:
            raise Halt(thought)
        return thought

    async def _generate(self, request: Request, attempt: int) -> _Generation:
        """Read the stream through the gate; a crossing closes it at once."""
        gate = StreamGate(
            self.policy, self.engine.info.vocabulary, context=self.context, attempt=attempt
        )
        tokens: list[Token] = []
        judgement: Judgement | None = None
        async with aclosing(self.engine.stream(request)) as stream:
            async for token in stream:
                tokens.append(token)
                judgement = gate.feed(token)
                if judgement is not None:
                    break
        if judgement is None and (not tokens or tokens[-1].finish is None):
            raise EngineError("the stream broke off before the model ended; run the task again")
        return _Generation(tuple(tokens), gate.evidence(), judgement)

    def _decide(self, evidence: Evidence, scope: Scope, attempt: int) -> Judgement:
        return decide(
            self.policy,
            evidence,
            self.engine.info.vocabulary,
            context=self.context,
            scope=scope,
            attempt=attempt,
        )

    def _wants_posterior(self) -> bool:
        return any(rule.reading == "posterior" for rule in self.policy.rules_for(self.context))

    # Operations without a model.
    # A user's function may raise anything: it fails its own branch, with its reason, and no other.

    async def _score(self, work: Work, operation: Score) -> Sequence[Thought]:
        try:
            score = float(operation.by(self.scene(work.parents)))
        except Exception as error:
            return [await self._failed(work, _reason(error))]
        if not math.isfinite(score):
            return [await self._failed(work, f"{operation.name} gave {score}, not a number")]
        scored = replace(work.parents[0], score=score)
        await self.log.score(scored.id, score, operation.name)
        return [self._remember(scored)]

    async def _keep_best(self, work: Work, operation: KeepBest) -> Sequence[Thought]:
        worst = math.inf if operation.lowest else -math.inf
        scores = [worst if t.score is None else t.score for t in work.parents]
        ranked = sorted(
            range(len(scores)), key=lambda i: (scores[i] if operation.lowest else -scores[i], i)
        )
        kept = sorted(ranked[: operation.n])
        return await self._select(work, kept, operation.name)

    async def _keep_valid(self, work: Work, operation: KeepValid) -> Sequence[Thought]:
        try:
            valid = bool(operation.by(self.scene(work.parents)))
        except Exception as error:
            return [await self._failed(work, _reason(error))]
        return await self._select(work, [0] if valid else [], operation.name)

    async def _select(self, work: Work, kept: list[int], reason: str) -> Sequence[Thought]:
        dropped = [i for i in range(len(work.parents)) if i not in kept]
        if dropped:
            await self.log.select(
                [work.parents[i].id for i in kept], [work.parents[i].id for i in dropped], reason
            )
        for i in dropped:
            lost = f"lost to a better one: {reason}" if kept else f"not kept: {reason}"
            self._remember(replace(work.parents[i], status=Status.DROPPED, reason=lost))
        return [work.parents[i] for i in kept]

    async def _split(self, work: Work, operation: Split) -> Sequence[Thought]:
        try:
            parts = [(str(text), value) for text, value in operation.by(self.scene(work.parents))]
            canonical_json([value for _, value in parts])
        except Exception as error:
            return [await self._failed(work, _reason(error))]
        made: list[Thought] = []
        for place, (text, value) in enumerate(parts):
            thought = replace(
                self._made(work, index=place), text=text, value=value, path=(*work.path, place)
            )
            made.append(await self.place(thought, place))
        return made

    async def _act(self, work: Work, operation: Act) -> Sequence[Thought]:
        """The tool call that the parent asks for; the parent was judged in scope ``action``."""
        try:
            call = operation.calls(work.parents[0].text)
            canonical_json(None if call is None else call.arguments)
        except Exception as error:
            return [await self._failed(work, _reason(error))]
        if call is None:
            return work.parents
        if call.tool not in operation.tools:
            known = ", ".join(sorted(operation.tools))
            return [await self._failed(work, f"no tool {call.tool!r}; there are: {known}")]
        thought = self._made(work, content=[call.tool, call.arguments])
        await self.log.intend_tool(thought.id, call.tool, call.arguments)
        # A thread cannot be stopped, and what it does must be known: when the run is cancelled, the
        # tool's end is still awaited and recorded.
        acting = asyncio.ensure_future(self._call(work, operation.tools[call.tool], call, thought))
        try:
            return [await asyncio.shield(acting)]
        except asyncio.CancelledError:
            await acting
            raise

    async def _call(self, work: Work, tool: Tool, call: Call, thought: Thought) -> Thought:
        """Run a tool whose intent is durable, and record what it said."""
        began = time.monotonic()
        try:
            text, ok = await asyncio.to_thread(tool.run, self.workspace, call.arguments), True
        except Exception as error:
            text, ok = _reason(error), False
        took = time.monotonic() - began
        await self.log.tool_result(thought.id, call.tool, text, ok=ok, latency_s=took)
        if ok:
            done = replace(thought, text=text)
        else:
            done = replace(thought, status=Status.FAILED, reason=text)
        return await self.place(done, work.index, acted=call.tool)

    # Thoughts

    def _made(
        self,
        work: Work,
        *,
        id: str | None = None,
        content: Any = None,
        index: int | None = None,
        attempt: int = 0,
    ) -> Thought:
        """A thought of this work, without content yet."""
        parents = tuple(parent.id for parent in work.parents)
        place = work.index if index is None else index
        operation = work.operation
        return Thought(
            id=id or thought_id(work.step, parents, prompt=content, index=place),
            operation=operation.name,
            kind=operation.kind,
            parents=parents,
            path=work.path,
            attempt=attempt,
        )

    async def _failed(self, work: Work, reason: str) -> Thought:
        _log.warning("operation failed", operation=work.operation.name, reason=reason)
        thought = self._made(work, content="failed")
        return await self.place(replace(thought, status=Status.FAILED, reason=reason), work.index)

    def _remember(self, thought: Thought) -> Thought:
        if thought.id not in self.thoughts:
            self.spending.spend(thought)
        self.thoughts[thought.id] = thought
        self.observe(thought)
        return thought


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
            thought, status=Status.FAILED, reason=f"the text does not parse: {_reason(error)}"
        )


def _reason(error: Exception) -> str:
    """One line; our own errors and ``ValueError`` speak for themselves."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (SecateurError, ValueError)):
        return line
    return f"{type(error).__name__}: {line}"


def _record(thought: Thought, index: int) -> ThoughtRecord:
    return ThoughtRecord(
        id=thought.id,
        parents=thought.parents,
        operation=thought.operation,
        kind=thought.kind,
        depth=len(thought.path) // 2,
        index=index,
        status=thought.status,
        attempt=thought.attempt,
        value=thought.value,
        score=thought.score,
        tokens=thought.tokens,
        judgement=thought.judgement,
        reason=thought.reason,
        text=thought.text,
    )
