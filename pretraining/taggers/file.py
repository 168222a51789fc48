"""A file of taggers (``taggers.yaml``): each by its name, and which of them speaks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, assert_never

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic import ValidationInfo as Info

from ...gates.encoding import decoded
from .cascade import CascadeTagger, CombinedTagger, How
from .classifier import ClassifierTagger
from .judge import JudgeTagger
from .learned import LearnedTagger
from .oracle import OracleTagger
from .patterns import PatternTagger
from .places import near
from .tagger import Tagger, TaggerError

__all__ = ["TaggersFile"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Learned(_Settings):
    """A tagger that ``secateur pretrain learn-tagger`` wrote into ``folder``."""

    kind: Literal["learned"] = "learned"
    folder: Path
    at: float | None = Field(default=None, gt=0, lt=1)
    """Fire from this probability on, instead of the one it was stored with."""

    @field_validator("folder")
    @classmethod
    def _stands_beside_its_file(cls, folder: Path, info: Info) -> Path:
        return near(str(folder), info)


class _Cascade(_Settings):
    kind: Literal["cascade"] = "cascade"
    first: str
    then: str


class _Combined(_Settings):
    kind: Literal["combine"] = "combine"
    how: How
    taggers: tuple[str, ...] = Field(min_length=2)


_Entry = Annotated[
    OracleTagger | PatternTagger | ClassifierTagger | JudgeTagger | _Learned | _Cascade | _Combined,
    Field(discriminator="kind"),
]


class TaggersFile(_Settings):
    """The taggers of one file. ``use`` names the one that tags, where there are several."""

    taggers: dict[str, _Entry] = Field(min_length=1)
    use: str | None = None
    given: Literal["skip", "tag"] = "skip"
    """Whether text that others wrote (a task, a tool's answer) bears tags too."""

    @model_validator(mode="after")
    def _names_only_what_is_there(self) -> Self:
        if self.use is None and len(self.taggers) > 1:
            raise ValueError(f"there are {len(self.taggers)} taggers; name the one to 'use'")
        if self.use is not None and self.use not in self.taggers:
            raise ValueError(f"'use' names no tagger here: {self.use!r}")
        for name, entry in self.taggers.items():
            for part in _parts(entry):
                if part not in self.taggers:
                    raise ValueError(f"tagger {name!r} names {part!r}, which is not here")
            if name in self._below(name, ()):
                raise ValueError(f"tagger {name!r} is made of itself")
        return self

    def _below(self, name: str, seen: tuple[str, ...]) -> set[str]:
        """All taggers that ``name`` is made of."""
        parts = set(_parts(self.taggers[name]))
        for part in parts - set(seen):
            parts |= self._below(part, (*seen, part))
        return parts

    @classmethod
    def load(cls, path: Path) -> "TaggersFile":
        """Read a file; paths in it count from its folder. Raises :class:`TaggerError`."""
        try:
            data = yaml.safe_load(decoded(path.read_bytes()))
            return cls.model_validate(data, context={"base": path.parent})
        except OSError as error:
            raise TaggerError(f"{path}: {error.strerror}; name a taggers file (YAML)") from None
        except UnicodeDecodeError:
            raise TaggerError(f"{path}: not UTF-8 text; save it as UTF-8") from None
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise TaggerError(f"{path}: no YAML: {reason}; correct it") from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            message = fault["msg"].removeprefix("Value error, ")
            raise TaggerError(
                f"{path}: {f'{where}: ' if where else ''}{message}; correct it"
            ) from None

    @property
    def chosen(self) -> str:
        """The name of the tagger that speaks."""
        return self.use or next(iter(self.taggers))

    def build(self, name: str | None = None) -> Tagger:
        """The tagger ``name``, or the chosen one. Raises :class:`TaggerError`."""
        name = self.chosen if name is None else name
        if name not in self.taggers:
            raise TaggerError(
                f"there is no tagger {name!r}; the file has {', '.join(self.taggers)}"
            )
        entry = self.taggers[name]
        match entry:
            case OracleTagger() | PatternTagger() | ClassifierTagger() | JudgeTagger():
                return entry
            case _Learned(folder=folder, at=at):
                return LearnedTagger.load(folder, at)
            case _Cascade(first=first, then=then):
                return CascadeTagger(self.build(first), self.build(then))
            case _Combined(how=how, taggers=parts):
                return CombinedTagger(how, tuple(map(self.build, parts)))
            case _:
                assert_never(entry)


def _parts(entry: Any) -> Sequence[str]:
    match entry:
        case _Cascade(first=first, then=then):
            return first, then
        case _Combined(taggers=parts):
            return parts
        case _:
            return ()
