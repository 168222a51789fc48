"""What the surroundings say: ``SECATEUR_…`` variables, then ``secateur.toml``, then defaults."""

import tomllib
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ..gates.errors import SecateurError
from .redaction import redacted

__all__ = ["Settings", "SettingsError"]

_FILE = "secateur.toml"


class SettingsError(SecateurError):
    """A ``SECATEUR_…`` variable or ``secateur.toml`` says something that cannot be."""


class Settings(BaseSettings):
    """Defaults for the command line and for :meth:`Agent.run`; options given there come first.

    Raises :class:`SettingsError` in one line that names the key.
    """

    model_config = SettingsConfigDict(
        env_prefix="SECATEUR_",
        env_ignore_empty=True,
        toml_file=_FILE,
        extra="forbid",
        frozen=True,
    )

    db: str = Field(default="secateur.db", min_length=1)
    """The ledger: a path or a database URL."""
    engine: str = Field(default="local", min_length=1)
    """``local``, or the URL of a server."""
    model: str = Field(default="seedling", min_length=1)
    """A shipped model's name, or a folder."""
    policy: str | None = Field(default=None, min_length=1)
    """A shipped policy's name or a file; where not set, the agent's own."""
    vllm_python: str | None = Field(default=None, min_length=1)
    """The Python of the environment that has vLLM, where it is not this one."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except tomllib.TOMLDecodeError as error:
            said = redacted(str(error))
            raise SettingsError(f"{_FILE}: {said}; see docs/ledger.md for its keys") from None
        except ValidationError as error:
            fault = error.errors()[0]
            key = redacted(".".join(map(str, fault["loc"])))
            known = ", ".join(type(self).model_fields)
            raise SettingsError(
                f"SECATEUR_{key.upper()} or {key!r} in {_FILE}: {fault['msg']}; keys are {known}"
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then ``secateur.toml`` in the working directory."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
