"""What is shipped is complete: the wheel and the sdist work in an environment of their own."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REQUIRED = "build" in os.environ.get("SECATEUR_REQUIRE", "").split(",")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and a wheel that was built from that sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and not REQUIRED and "Could not find a version" in done.stdout:
        pytest.skip("building needs setuptools from a package registry, and none answers")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel, what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    (wheel,) = dist.glob("*.whl")
    run(*pip, "install", "-c", ROOT / "constraints.txt", "torch", cwd=folder)
    run(*pip, "install", "-c", ROOT / "constraints.txt", f"{wheel}[local]", cwd=folder)
    return folder


def test_the_wheel_is_small_enough_to_carry_its_model(dist: Path):
    (wheel,) = dist.glob("*.whl")
    assert 1e6 < wheel.stat().st_size < 15e6


def test_the_installed_wheel_runs_and_records_a_task(environment: Path, tmp_path: Path):
    secateur = environment / "bin" / "secateur"
    done = run(secateur, "run", "sort", "[3, 1, 2]", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert result["status"] == "done"
    assert result["result"] == "[1, 2, 3]"
    (recorded,) = json.loads(run(secateur, "audit", "runs", "--json", cwd=tmp_path).stdout)
    assert recorded["run"] == result["run"]
    assert json.loads(run(secateur, "audit", "verify", "--json", cwd=tmp_path).stdout)["ok"]


def test_the_sdist_installs_and_runs(environment: Path, dist: Path, tmp_path: Path):
    (sdist,) = dist.glob("*.tar.gz")
    pip = [environment / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", "--no-deps", "--force-reinstall", sdist, cwd=tmp_path)
    secateur = environment / "bin" / "secateur"
    assert "fine" in run(secateur, "policy", "check", "strict", cwd=tmp_path).stdout
    result = json.loads(run(secateur, "run", "sort", "2 1", "--json", cwd=tmp_path).stdout)
    assert result["result"] == "[1, 2]"
