"""What the surroundings say: ``SECATEUR_…`` variables, then ``secateur.toml``, then defaults."""

import os
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ..gates.encoding import decoded
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
    """The Python of the environment that has vLLM, where it is not this one. Not in the file: what
    lies in a working directory may not name a program to start."""

    _in_file: frozenset[str] = PrivateAttr(default=frozenset())
    """What ``secateur.toml`` alone says."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            said = redacted(str(error))
            raise SettingsError(f"{_FILE}: {said}; see docs/ledger.md for its keys") from None
        except ValidationError as error:
            fault = error.errors()[0]
            key = redacted(".".join(map(str, fault["loc"])))
            known = ", ".join(type(self).model_fields)
            raise SettingsError(
                f"SECATEUR_{key.upper()} or {key!r} in {_FILE}: {fault['msg']}; keys are {known}"
            ) from None

        self._in_file = frozenset(
            name
            for name in self.model_fields_set - set(given)
            if not os.environ.get(f"SECATEUR_{name.upper()}")
        )
        if "db" in self._in_file and "://" in self.db and os.environ.get("PGPASSWORD"):
            raise SettingsError(
                f"{_FILE} names the database's server, and PGPASSWORD is set: a password goes only "
                "where you say; set SECATEUR_DB"
            )

    def server(self, given: str | None = None, recorded: str | None = None) -> str:
        """The engine that is given, else the one that a run recorded, else the setting.

        Raises :class:`SettingsError` where a key would go to a server that only the ledger or the
        working directory's file names.
        """
        found = given or recorded or self.engine
        said = given or (None if "engine" in self._in_file else self.engine)
        if found != said and found != "local" and os.environ.get("VLLM_API_KEY"):
            who = "the ledger" if recorded else _FILE
            raise SettingsError(
                f"{who} names the server {found}, and VLLM_API_KEY is set: a key goes only where "
                "you say; give --engine, or set SECATEUR_ENGINE"
            )
        return found

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
        return init_settings, env_settings, _File(settings_cls)


class _File(TomlConfigSettingsSource):
    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        found = tomllib.loads(decoded(file_path.read_bytes()))
        if "vllm_python" in found:
            raise SettingsError(
                f"{_FILE}: vllm_python names a program to start, which is for you to say: give "
                "--python, or set SECATEUR_VLLM_PYTHON"
            )
        return found
