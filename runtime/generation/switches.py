"""Asking a user's function which controls hold from here on, and holding it to the locks."""

from collections.abc import Mapping
from typing import Any

from ...agents.errors import named
from ...agents.functions import FunctionError, called
from ...agents.plans.operations import Ask
from ...agents.steering import Progress
from ...gates.control import ALLOW, Control, loosens, tightened
from ...gates.errors import SecateurError
from ...gates.policy import Policy
from ...gates.vocabulary import BoundVocabulary
from ..executor.threads import OverdueError, aside

__all__ = ["PATIENCE", "Steering", "SteeringError", "UnlockError"]

PATIENCE = 10.0
"""Seconds that a steering function may take; then its thought fails."""


class SteeringError(SecateurError):
    """A steering function raised, hung, or gave what are no controls."""


class UnlockError(SecateurError):
    """A steering function would loosen what the policy locks."""


class Steering:
    """One thought's steering function, its locks, and the bounds that a retry set."""

    def __init__(
        self,
        operation: Ask,
        policy: Policy,
        context: str | None,
        vocabulary: BoundVocabulary,
        bounds: Mapping[str, Control],
        patience: float | None = None,
    ) -> None:
        self.at = operation.steer_at
        self._operation = operation
        self._policy = policy
        self._base = policy.controls(context)
        self._known = vocabulary.vocabulary.by_name
        self._bounds = bounds
        self._patience = PATIENCE if patience is None else patience

    async def ask(self, progress: Progress) -> dict[str, Control] | None:
        """The controls from here on, where they differ from those in force.

        What a retry tightened stays at least as tight. Raises :class:`SteeringError` or
        :class:`UnlockError`, in one line.
        """
        given = await self._call(progress)
        if given is None:
            return None
        changed = self._read(given)
        for tag, wanted in changed.items():
            base = self._base.get(tag, ALLOW)
            if tag in self._policy.locked and loosens(base, wanted):
                raise UnlockError(
                    f"{self._name} loosens {tag!r} from {base} to {wanted}, and it is locked in "
                    f"policy {self._policy.name!r}; return a control that is as tight"
                )
        before = dict(progress.controls)
        after = tightened({**before, **changed}, self._bounds)
        same = all(
            before.get(tag, ALLOW) == after.get(tag, ALLOW) for tag in before.keys() | after.keys()
        )
        return None if same else after

    @property
    def _name(self) -> str:
        function = getattr(self._operation.steer, "__name__", "its function")
        return f"operation {self._operation.name!r}: steer={function}"

    async def _call(self, progress: Progress) -> Any:
        steer = self._operation.steer
        assert steer is not None
        try:
            return await aside(lambda: called(steer, progress), self._patience, "steering")
        except OverdueError:
            raise SteeringError(
                f"{self._name} gave no answer within {self._patience:g} s; make it faster"
            ) from None
        except Exception as error:
            said = str(error) if isinstance(error, FunctionError) else named(error)
            raise SteeringError(f"{self._name} raised {said}") from error

    def _read(self, given: Any) -> dict[str, Control]:
        if not isinstance(given, Mapping):
            raise SteeringError(
                f"{self._name} gave {type(given).__name__}; return controls such as "
                '{"angry": "allow"}, or None'
            )
        found: dict[str, Control] = {}
        for tag, control in given.items():
            if tag not in self._known:
                raise SteeringError(
                    f"{self._name} names tag {tag!r}; the model has {', '.join(self._known)}"
                )
            try:
                found[tag] = Control.model_validate(control)
            except ValueError:
                raise SteeringError(
                    f"{self._name} gave {control!r} for {tag!r}; write allow, ban, force, "
                    "penalise(NATS) or boost(NATS)"
                ) from None
        return found
