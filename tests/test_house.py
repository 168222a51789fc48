"""The house stands as drawn: imports go one way, and each room needs only what it says."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Which rooms and parts of rooms a room may import from, itself included. The command line opens
# every room.
MAY_IMPORT = {
    "gates": {"gates"},
    "agents": {"gates", "agents"},
    "models": {"models", "gates"},
    "pretraining": {
        "gates",
        "agents",
        "pretraining",
        "models",
        "runtime/engines",
        "runtime/posterior",
        "runtime/redaction",
        "runtime/screen",
    },
    "runtime": {"gates", "agents", "models", "runtime", "migrations"},
    "runtime/cli": {"gates", "agents", "models", "runtime", "migrations", "pretraining"},
    "migrations": {"gates", "agents", "runtime", "migrations"},
}
MODULES = sorted(
    path.relative_to(ROOT)
    for room in ("gates", "agents", "models", "pretraining", "runtime", "migrations")
    for path in (ROOT / room).rglob("*.py")
)


def imported_by(module: Path) -> set[str]:
    """What a module imports of ours, nested imports included: ``room/file/name``."""
    package = ("secateur", *module.parent.parts)
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            found |= {(*base, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    return {"/".join(path[1:]) for path in found if path[0] == "secateur" and len(path) > 1}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path):
    room = "runtime/cli" if module.is_relative_to("runtime/cli") else module.parts[0]
    barred = {
        path
        for path in imported_by(module)
        if not any(f"{path}/".startswith(f"{allowed}/") for allowed in MAY_IMPORT[room])
    }
    assert not barred


def test_gates_need_only_pydantic_and_numpy():
    script = """
import importlib, pkgutil, sys
import secateur.gates
for module in pkgutil.iter_modules(secateur.gates.__path__, "secateur.gates."):
    if not module.ispkg:
        importlib.import_module(module.name)
import pydantic, numpy
own = {"secateur", "pydantic", "pydantic_core", "numpy", "annotated_types", "typing_extensions",
       "typing_inspection"}
found = {name.split(".")[0] for name, m in sys.modules.items() if getattr(m, "__file__", None)
         and "site-packages" in m.__file__}
print(sorted(found - own - BEFORE))
"""
    before = "import sys; BEFORE = {name.split('.')[0] for name in sys.modules}\n"
    done = subprocess.run(
        [sys.executable, "-c", before + script], capture_output=True, text=True, cwd="/"
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_every_package_is_listed_for_the_wheel():
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    on_disk = {"secateur"} | {".".join(("secateur", *module.parent.parts)) for module in MODULES}
    assert on_disk == listed


def test_every_name_at_the_front_door_opens():
    import secateur

    for name in secateur.__all__:
        assert getattr(secateur, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = secateur.nonsense
