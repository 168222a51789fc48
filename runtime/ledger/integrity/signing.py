"""The Ed25519 key that signs checkpoints: a file of its owner's, never in the database."""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ....gates.encoding import decoded
from ..errors import LedgerError

__all__ = ["SigningKey", "default_key", "public_key", "signed_by"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the file that holds it."""

    path: Path
    _private: Ed25519PrivateKey

    @classmethod
    def open(cls, path: Path) -> "SigningKey":
        """Read a key (PKCS #8, PEM, without a password) that only its owner can read.

        Raises :class:`LedgerError` in one line.
        """
        try:
            content = path.read_bytes()
            mode = path.stat().st_mode & 0o777
        except OSError as error:
            raise LedgerError(
                f"the key {path} cannot be read ({error.strerror}): name another with --key"
            ) from None
        if mode & 0o077:
            raise LedgerError(
                f"the key {path} can be read by others (mode {mode:o}): run `chmod 600 {path}`, "
                "and make a new one if somebody else may have it"
            )
        try:
            private = serialization.load_pem_private_key(decoded(content).encode(), password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise LedgerError(
                f"{path} holds no Ed25519 private key (PEM, without a password): name another with "
                "--key, or a path that is not there yet to make one"
            )
        return cls(path, private)

    @classmethod
    def generate(cls, path: Path) -> "SigningKey":
        """Make a new key there, mode 600, and its public half beside it as ``.pub``.

        Raises :class:`LedgerError` where there is a file already, or none can be made.
        """
        private = Ed25519PrivateKey.generate()
        content = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        made = cls(path, private)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path, content, 0o600)
            _create(path.with_name(f"{path.name}.pub"), f"{made.public}\n".encode(), 0o644)
        except OSError as error:
            raise LedgerError(
                f"no key can be made at {path} ({error.strerror}): name another path with --key"
            ) from None
        return made

    @property
    def public(self) -> str:
        """The public key: 64 hexadecimal digits."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> str:
        """The signature of RFC 8032: 128 hexadecimal digits."""
        return self._private.sign(message).hex()


def default_key() -> Path:
    """Where the key is when nobody says otherwise: in the user's own configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "secateur" / "checkpoint.key"


def public_key(given: str) -> str:
    """A public key from 64 hexadecimal digits, or from a file that holds them.

    Raises :class:`LedgerError`.
    """
    text = given.strip().lower()
    if not _is_key(text):
        try:
            text = decoded(Path(given).read_bytes()).strip().lower()
        except (OSError, ValueError):
            text = ""
    if not _is_key(text):
        raise LedgerError(
            f"{given!r} is no public key: give its 64 hexadecimal digits, or the file that holds "
            "them (beside the private key, as .pub)"
        )
    return text


def signed_by(key: str, signature: str, message: bytes) -> bool:
    """Whether the signature of this message was made with this key."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), message)
        # One spelling alone: fromhex passes over spaces and capitals.
        return (bytes.fromhex(key).hex(), bytes.fromhex(signature).hex()) == (key, signature)
    except (InvalidSignature, ValueError, TypeError):
        return False


def _is_key(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _create(path: Path, content: bytes, mode: int) -> None:
    """A new file that nobody else could read for a moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
