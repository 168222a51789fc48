"""Values that cannot be changed after they were checked: the base model and the frozen dict."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

__all__ = ["FrozenDict", "FrozenMapping", "FrozenModel"]

V = TypeVar("V")


class FrozenModel(BaseModel):
    """A pydantic model that cannot be assigned to, refuses unknown keys, and stays checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A changed copy, validated like a new one: pydantic's own skips every check."""
        return type(self).model_validate({**dict(self), **(update or {})})


class FrozenDict(dict[str, V]):
    """A dict whose items were checked once and stay: every method that writes raises TypeError."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a checked policy cannot be changed; build a new one and load that")

    if not TYPE_CHECKING:  # Fields are annotated Mapping, so checkers refuse writes already.
        __setitem__ = __delitem__ = __ior__ = _refuse
        clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


FrozenMapping = Annotated[Mapping[str, V], AfterValidator(FrozenDict)]
