"""Fixtures: the files of a release, and environments to install it into."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

import pytest

from tests.support.project import ROOT, program

CLASSIFIER = re.compile(r'"Programming Language :: Python :: 3\.(\d+)"')
MINORS = [int(minor) for minor in CLASSIFIER.findall((ROOT / "pyproject.toml").read_text())]
UNREACHABLE = re.compile(r"error sending request|network was disabled")


class Release(t.NamedTuple):
    """The files of a release."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "wheel", "sdist")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Release(wheel, sdist)


@pytest.fixture(scope="session")
def unpacked(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is in the sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(release.sdist) as archive:
        archive.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


def build(source: Path, folder: Path, *targets: str) -> None:
    """Build with the backend that pyproject.toml names, without a new environment for it."""
    chosen = [f"--target={target}" for target in targets]
    command = [sys.executable, "-m", "hatchling", "build", f"--directory={folder}", *chosen]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)


def interpreter(minor: int) -> str:
    """Find a Python on the PATH or among those of pyenv, or skip the test."""
    name = f"python3.{minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [*os.get_exec_path(), *(str(folder) for folder in pyenv.glob(f"3.{minor}.*/bin"))]
    for folder in [str(Path(sys.executable).parent), *folders]:
        found = shutil.which(name, path=folder)
        if (
            found
            and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return found  # what pyenv puts on the PATH may be the name of a Python that is off
    pytest.skip(f"this machine has no Python 3.{minor}: neither on the PATH nor in {pyenv}")


def fetch(name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """Run uv, uvx or pipx, which may fetch packages, or skip the test if the network is down."""
    environment = os.environ | variables | {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    environment["PATH"] = f"{Path(program('uv')).parent}{os.pathsep}{environment['PATH']}"
    command = [program(name), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if UNREACHABLE.search(done.stderr):
        pytest.skip("the package registry is out of reach, and uv's cache has not got all packages")
    assert done.returncode == 0, done.stderr
    return done


def install(wheel: Path, python: str, folder: Path) -> Path:
    """Install a wheel with the versions of constraints.txt; return the folder of its programs."""
    fetch("uv", "venv", "-q", "--no-project", "--python", python, folder)
    constraints = ROOT / "constraints.txt"
    fetch("uv", "pip", "install", "-q", "--python", folder, "--constraints", constraints, wheel)
    return folder / "bin"
