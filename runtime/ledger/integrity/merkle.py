"""The Merkle tree of RFC 6962 (Certificate Transparency), section 2.1, over SHA-256. Pure.

A leaf is hashed with a zero byte before it, a node with a one byte before its two children, so that
no leaf can pass for a node; the left half is the largest power of two below the whole.
"""

from collections.abc import Sequence
from hashlib import sha256

__all__ = ["proof", "proves", "root"]


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree's root, 32 bytes; that of no leaf is SHA-256 of nothing."""
    if not leaves:
        return sha256(b"").digest()
    level = [_leaf(leaf) for leaf in leaves]
    while len(level) > 1:
        level = _up(level)
    return level[0]


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of one leaf: what, hashed with it from the bottom up, gives the root.

    Raises ``IndexError`` where there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"there is no leaf {index} among {len(leaves)}")
    path: list[bytes] = []
    level = [_leaf(leaf) for leaf in leaves]
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):  # the last of an odd level goes up alone
            path.append(level[beside])
        level, index = _up(level), index // 2
    return path


def proves(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether ``path`` shows that ``leaf`` is number ``index`` of the ``size`` under ``root``."""
    if not 0 <= index < size:
        return False
    left = list(path)
    here, last = index, size - 1
    found = _leaf(leaf)
    while last:
        if here % 2 or here < last:
            if not left:
                return False
            beside = left.pop(0)
            found = _node(beside, found) if here % 2 else _node(found, beside)
        here, last = here // 2, last // 2
    return not left and found == root


def _leaf(content: bytes) -> bytes:
    return sha256(b"\x00" + content).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _up(level: list[bytes]) -> list[bytes]:
    pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + level[len(level) - len(level) % 2 :]
