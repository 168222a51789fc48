"""The house stands as drawn: its rooms, the direction of imports, one door for each name."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    "gates": ("what tags mean and when to prune; pure, no I/O, no clock, no model", ()),
    "agents": (
        "what a user writes: thoughts, plans, searches, tools; ready-made agents",
        ("gates",),
    ),
    "models": ("the shipped model, and presets for public checkpoints", ("gates",)),
    "migrations": (
        "the ledger's schema, one revision a file (Alembic)",
        ("gates", "agents", "runtime"),
    ),
    "runtime": (
        "what makes it run: executor, generation, recovery, engines, ledger, review",
        ("gates", "agents", "models", "migrations"),
    ),
    "pretraining": (
        "corpus, training, evaluation, retagging, laboratory, taggers",
        ("gates", "agents", "models", "runtime"),
    ),
    "cli": (
        "the command line, one module for each group of commands",
        ("gates", "agents", "models", "migrations", "runtime", "pretraining"),
    ),
}
"""Each floor: what it is, and the floors below that it may import from."""

ROOMS = {
    "agents": {"desk", "plans", "ready", "search"},
    "runtime": {
        "engines",
        "engines/local",
        "engines/vllm",
        "engines/vllm/serving",
        "executor",
        "generation",
        "ledger",
        "ledger/integrity",
        "ledger/reading",
        "ledger/search",
        "ledger/writing",
        "pictures",
        "recovery",
        "review",
    },
    "pretraining": {
        "configs",
        "configs/lab",
        "corpus",
        "evaluation",
        "laboratory",
        "retagging",
        "taggers",
        "training",
    },
    "gates": {"policies"},
    "models": {"seedling"},
    "migrations": {"versions"},
    "cli": set[str](),
}
"""The rooms of each floor."""

LIBRARY_SCRIPTS = {"runtime/ledger/integrity/verifier.py"}
"""What stands alone on purpose, and repeats what others define."""

MODULES = sorted(
    path.relative_to(ROOT) for floor in FLOORS for path in (ROOT / floor).rglob("*.py")
)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def dotted(module: Path) -> str:
    """``runtime/ledger/tables.py`` as ``runtime.ledger.tables``."""
    return ".".join(module.with_suffix("").parts).removesuffix(".__init__")


NAMES = {dotted(module): module for module in MODULES}


def imports(module: Path) -> Iterator[tuple[str, str]]:
    """(module of ours, name) for all that a module imports of ours, nested imports included; the
    name is empty where a whole module is imported."""
    package = module.parent.parts
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
        for alias in node.names:
            whole = ".".join(filter(None, [base, alias.name]))
            yield (whole, "") if whole in NAMES else (base, alias.name)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path):
    floor = module.parts[0]
    allowed = {floor, *FLOORS[floor][1]}
    assert {name for name, _ in imports(module) if name.partition(".")[0] not in allowed} == set()


def test_no_imports_of_files_go_in_a_circle():
    graph = {
        name: {to for to, _ in imports(module) if to in NAMES and to != name}
        for name, module in NAMES.items()
    }
    left = dict(graph)
    while ends := [name for name, to in left.items() if not to & left.keys()]:
        for name in ends:
            del left[name]
    assert left == {}


def defined(module: Path) -> set[str]:
    """The names that a module itself defines."""
    found = set[str]()
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


DEFINED = {name: defined(module) for name, module in NAMES.items()}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_name_is_imported_from_where_it_is_defined(module: Path):
    if dotted(module) == "gates":
        return  # the front door of a floor that is used by itself
    passed_on = {
        f"{name} from {base}"
        for base, name in imports(module)
        if name and base in DEFINED and name not in DEFINED[base]
    }
    assert passed_on == set()


def test_the_rooms_are_those_of_the_plan():
    found = {
        floor: {
            "/".join(module.parts[1:-1])
            for module in MODULES
            if module.parts[0] == floor and len(module.parts) > 2
        }
        for floor in FLOORS
    }
    assert found == ROOMS


def test_two_files_share_a_name_only_where_rooms_mirror_each_other():
    """A command is named after what it opens, an engine's rooms are built alike, and each floor
    has its errors; CONTRIBUTING lists the others."""
    names = Counter(module.name for module in MODULES if module.parts[0] != "cli")
    twice = {name for name, times in names.items() if times > 1} - {"__init__.py", "errors.py"}
    listed = re.search(r"Names that stand twice: (.*?)\.\n", CONTRIBUTING, re.S)
    assert listed is not None
    assert twice == set(re.findall(r"`([a-z_]+\.py)`", listed[1]))


def test_the_table_in_contributing_is_this_plan():
    rows: list[str] = []
    for floor, (what, allowed) in FLOORS.items():
        below = ", ".join(f"`{name}`" for name in allowed) or "pydantic, numpy"
        rows.append(f"| `{floor}/` | {what} | {below} |")
    assert "\n".join(rows) in CONTRIBUTING


def walks() -> list[tuple[str, str, list[str]]]:
    """(what is added, the word to look for, the files that know it), as CONTRIBUTING has them."""
    found = re.findall(r"^\| (a new [a-z ]+) \| `([^`]+)` \| (.*) \|$", CONTRIBUTING, re.M)
    return [(what, word, re.findall(r"`([^`]+\.\w+)`", files)) for what, word, files in found]


@pytest.mark.parametrize(("what", "word", "files"), walks(), ids=lambda value: str(value)[:30])
def test_what_is_added_touches_the_files_that_contributing_says(
    what: str, word: str, files: list[str]
):
    """One of each that stands there is walked: the files of the package in which its word is."""
    pattern = re.compile(word)
    found = [str(m) for m in MODULES if pattern.search((ROOT / m).read_text("utf-8"))]
    assert found == sorted(files)


def test_contributing_walks_one_of_each():
    assert [what for what, _, _ in walks()] == [
        f"a new {kind}" for kind in ("operation", "reading", "event kind", "engine", "command")
    ]


def test_each_question_of_a_newcomer_leads_to_one_room():
    asked = re.findall(r"^\d+\. (.+\?) (`[^`]+`)", CONTRIBUTING, re.M)
    assert len(asked) >= 10
    for question, room in asked:
        assert (ROOT / room.strip("`")).exists(), question


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


def test_a_module_that_moved_is_found_at_its_old_name_with_a_warning():
    from secateur.moved import MOVED

    for old, new in MOVED.items():
        sys.modules.pop(f"secateur.{old}", None)
        with pytest.warns(DeprecationWarning, match=re.escape(f"secateur.{new}")):
            found = importlib.import_module(f"secateur.{old}")
        assert found is importlib.import_module(f"secateur.{new}")
