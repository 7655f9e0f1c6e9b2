"""The image's definition: its steps, as far as they can be tried without an engine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import Release
from tests.support.project import ROOT

STEPS = [
    line.split(maxsplit=1)
    for line in (ROOT / "Containerfile").read_text().replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
IGNORED = (ROOT / ".containerignore").read_text().splitlines()
UNREACHABLE = re.compile(r"NewConnectionError|No matching distribution|Temporary failure")


def last(name):
    return [value for step, value in STEPS if step == name][-1]


def test_the_image_runs_without_rights():
    """The last stage has a user that is not root, and nothing of the build but the environment."""
    assert 0 < int(last("USER"))
    stages = [index for index, (name, _) in enumerate(STEPS) if name == "FROM"]
    copied = [value for name, value in STEPS[stages[-1] :] if name == "COPY"]
    assert ["--from=build /opt/moengage-cohort /opt/moengage-cohort"] == copied
    assert len(stages) == 2


def test_only_what_is_copied_is_sent_to_the_engine():
    """No settings, ledgers or keys of the checkout can get into a layer."""
    sources = {
        source
        for name, value in STEPS
        if name == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    }
    assert "*" == IGNORED[0]
    assert sources == {line[1:] for line in IGNORED if line.startswith("!")}
    assert (ROOT / "constraints.txt").exists()


def test_the_steps_install_the_commands(release: Release, tmp_path: Path) -> None:
    """The build's command makes an environment with both commands and the driver of PostgreSQL,
    from the wheel of `make build`, whose version they have."""
    source, made = tmp_path / "source", tmp_path / "opt"
    source.mkdir()
    for file in (ROOT / "constraints.txt", release.wheel):
        shutil.copy(file, source)
    command = next(value for name, value in STEPS if name == "RUN")
    command = command.replace("/opt/moengage-cohort", str(made)).replace("/source", str(source))
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=600
    )
    if UNREACHABLE.search(done.stderr):
        pytest.skip("the package registry is out of reach")
    assert done.returncode == 0, done.stderr
    environment = {"PATH": f"{made}/bin:{os.defpath}", "HOME": str(tmp_path)}
    (entry,) = json.loads(last("ENTRYPOINT"))
    for words in ([entry, "--version"], ["moengage-cohort", "--version"]):
        ran = subprocess.run(words, env=environment, capture_output=True, check=True, text=True)
        assert release.wheel.name.split("-")[1] in ran.stdout
    subprocess.run([f"{made}/bin/python", "-c", "import psycopg"], check=True)
