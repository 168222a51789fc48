"""Policies as YAML: every fault is refused in one line with file, line and remedy."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from .encoding import decoded
from .errors import PolicyError

__all__ = ["SHIPPED", "Places", "parse_policy", "read_policy"]

SHIPPED = ("observe", "prune", "strict")
"""The policies that come with the package, loaded by name."""

Places = dict[tuple[str | int, ...], str]


def read_policy(path: str | Path) -> tuple[str, str]:
    """The text of a policy file, or of a shipped policy when ``path`` is one of :data:`SHIPPED`,
    and what messages call it."""
    if path in SHIPPED:
        found = files(f"{__package__}.policies") / f"{path}.yaml"
        return found.read_text("utf-8"), f"{path}.yaml"
    try:
        return decoded(Path(path).read_bytes()), str(path)
    except FileNotFoundError:
        raise PolicyError(
            f"{path}: no such policy file; give a YAML file, or a shipped policy by name: "
            f"{', '.join(SHIPPED)}"
        ) from None
    except UnicodeDecodeError:
        raise PolicyError(f"{path}: not UTF-8 text; save the policy as UTF-8") from None
    except OSError as error:
        raise PolicyError(
            f"{path}: cannot be read ({error.strerror}); give a YAML file you may read"
        ) from None


def parse_policy(text: str, source: str, places: Places) -> Any:
    """Plain data from YAML, and into ``places`` the line of every value.

    Stricter than YAML: no duplicate keys, no aliases, and keys are text.
    """
    import yaml  # a model server that only applies policies does not need it

    def refuse(line: int, fault: str) -> PolicyError:
        return PolicyError(fault, place=f"{source}:{line}")

    def read(node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        line = node.start_mark.line + 1
        if id(node) in seen:
            raise refuse(
                line, "an alias repeats this value; a policy has none, so write it out twice"
            )
        seen.add(id(node))
        places[where] = f"{source}:{line}"
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = key_node.start_mark.line + 1
                key = loader.construct_object(key_node)
                if not isinstance(key, str):
                    raise refuse(key_line, f"key {key!r} must be text; put it in quotes")
                if key in found:
                    raise refuse(key_line, f"key {key!r} stands twice; keep one of them")
                found[key] = read(value_node, (*where, key))
                places[(*where, key)] = f"{source}:{key_line}"  # a block's key stands above it
            return found
        if isinstance(node, yaml.SequenceNode):
            return [read(child, (*where, index)) for index, child in enumerate(node.value)]
        return loader.construct_object(node)

    seen = set[int]()
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise refuse(1, "the policy is empty; write at least name: and rules:")
        if not isinstance(root, yaml.MappingNode):
            raise refuse(1, "a policy is a mapping; write name:, tags: and rules: as keys")
        return read(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise refuse(line, f"not YAML: {error.problem or error.context}; correct it") from None
    except (yaml.YAMLError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise refuse(1, f"not YAML: {fault}; correct it") from None
    except RecursionError:
        raise refuse(1, "nested too deeply for a policy; flatten it") from None
