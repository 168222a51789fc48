"""What a run is made with, as a user names it: opened for a run, and let go of after it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...agents.functions import check_plain
from ...agents.spec import AgentSpec
from ...agents.thought import Thought
from ...gates.errors import SecateurError
from ...gates.policy import Policy
from ..engines.opening import open_engine
from ..engines.protocol import Engine
from ..ledger.ledger import Ledger
from ..settings import Settings
from .session import Session

__all__ = ["ConfigError", "Parts"]


class ConfigError(SecateurError):
    """LangGraph's ``configurable`` says something that no run has."""


def _ignore(told: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Parts:
    """An agent with policy, engine and ledger, by name or as they are."""

    agent: AgentSpec
    policy: Policy | str | Path | None = None
    engine: Engine | str | None = None
    ledger: Ledger | str | Path | None = None
    seed: int = 0
    sandbox: str | Path | None = None
    observe: Callable[[Thought], None] = _ignore
    started: Callable[[str], None] = _ignore
    origin: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Engine] | None = None
    """Engines that stay open for the next run; None lets go of each."""

    def __post_init__(self) -> None:
        check_plain(self.observe, "observe=")
        check_plain(self.started, "started=")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """All of it opened; the run itself is not begun yet."""
        async with AsyncExitStack() as held:
            engine = await self._engine(held)
            ledger = await held.enter_async_context(self.open_ledger())
            yield Session(
                agent=self.agent,
                engine=engine,
                ledger=ledger,
                chosen=self.policy,
                seed=self.seed,
                sandbox=None if self.sandbox is None else Path(self.sandbox),
                observe=self.observe,
                started=self.started,
                origin=self.origin,
            )

    @asynccontextmanager
    async def open_ledger(self) -> AsyncIterator[Ledger]:
        """The ledger alone."""
        if isinstance(self.ledger, Ledger):
            yield self.ledger
            return
        async with Ledger.open(self.ledger or Settings().db) as ledger:
            yield ledger

    async def _engine(self, held: AsyncExitStack) -> Engine:
        if self.engine is not None and not isinstance(self.engine, str):
            return self.engine
        settings = Settings()
        name = settings.server(self.engine)
        if self.kept is not None:
            if name not in self.kept:
                self.kept[name] = open_engine(name, settings.model)
            return self.kept[name]
        engine = open_engine(name, settings.model)
        held.push_async_callback(engine.aclose)
        return engine

    def configured(self, configurable: Mapping[str, Any]) -> "Parts":
        """With what ``configurable["secateur"]`` says otherwise. Raises :class:`ConfigError`."""
        given = configurable.get("secateur") or {}
        known = ("policy", "engine", "ledger", "seed", "sandbox")
        if not isinstance(given, Mapping) or not given.keys() <= set(known):
            raise ConfigError(
                'configurable["secateur"] is a mapping with any of ' + ", ".join(known)
            )
        return replace(self, **given)
