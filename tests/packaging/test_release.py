"""The files of a release: a wheel and an sdist."""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from readme_renderer import markdown

from tests.packaging.conftest import Release, build
from tests.support.project import ROOT

PACKAGE = ROOT / "target_moengage_cohort"
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")


def info(release: Release) -> str:
    """Return the name of the wheel's folder of metadata."""
    return "-".join(release.wheel.name.split("-")[:2]) + ".dist-info"


@pytest.fixture
def metadata(release: Release) -> Metadata:
    """The wheel's metadata; an exception if a registry would refuse it."""
    text = zipfile.ZipFile(release.wheel).read(f"{info(release)}/METADATA")
    return Metadata.from_email(text, validate=True)


def test_the_wheel_is_the_package_and_no_more(release: Release) -> None:
    """The wheel contains each file of the package, its license, and nothing else: no tests and no
    caches. Among them are the pages' files."""
    package = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    found = zipfile.ZipFile(release.wheel).namelist()
    page = ("page.html", "page.css", "page.js", "page_faults.js")
    assert {f"{PACKAGE.name}/emulator/{name}" for name in page} <= package
    assert package | {f"{info(release)}/{name}" for name in about} == set(found)


def test_the_sdist_builds_the_same_wheel(release: Release, unpacked: Path, tmp_path: Path) -> None:
    """A wheel that is built from the sdist is the released one, byte for byte."""
    build(unpacked, tmp_path, "wheel")
    (wheel,) = tmp_path.iterdir()
    assert (release.wheel.name, release.wheel.read_bytes()) == (wheel.name, wheel.read_bytes())


def test_the_sdist_has_no_caches(release: Release) -> None:
    """The sdist contains no caches, environments, settings or builds."""
    with tarfile.open(release.sdist) as archive:
        parts = {part for name in archive.getnames() for part in name.split("/")[1:]}
    unwanted = {"__pycache__", ".env", ".git", ".meltano", "dist", "build"}
    assert set() == {part for part in parts if part in unwanted or part.endswith("_cache")}
    assert [] == [part for part in parts if part.startswith(".venv")]


def test_the_version_is_that_of_the_tag(tmp_path: Path) -> None:
    """The version is the tag's on its commit, a development version after it or without a tag, and
    0.0.0 outside of a clone."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)

    def version() -> str:
        command = [sys.executable, "-m", "hatchling", "metadata", "version"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def git(*arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=tmp_path, capture_output=True, check=True)

    assert "0.0.0" == version()
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    assert version().startswith("0.0.1.dev1+g")
    git("tag", "v9.8.7")
    assert "9.8.7" == version()
    git("commit", "-qm", "later", "--allow-empty")
    assert version().startswith("9.8.8.dev1+g")


def test_the_sdist_has_all_that_its_tests_need(unpacked: Path) -> None:
    """The tests can be run from the sdist, which has the whole repository except the files for its
    hosts."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: nothing tells what belongs to the repository")
    command = ["git", "ls-files", ":!.ci", ":!.github"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in tracked.splitlines() if (ROOT / name).exists()]
    assert "meltano.yml" in files
    assert [] == [name for name in files if not (unpacked / name).is_file()]


def test_the_metadata_is_valid_and_right(metadata: Metadata) -> None:
    """A registry's checks accept the metadata. It has all extras, and every requirement has a
    lower bound."""
    assert "target-moengage-cohort" == metadata.name
    assert (">=3.11", "Apache-2.0") == (str(metadata.requires_python), metadata.license_expression)
    assert ["arrow", "emulator", "otel", "page", "postgres", "s3"] == sorted(
        metadata.provides_extra
    )
    assert [] == [str(one) for one in metadata.requires_dist if not one.specifier]


def test_the_description_can_be_shown(metadata: Metadata) -> None:
    """The description is the README, and renders as on PyPI, without a warning."""
    assert "text/markdown" == metadata.description_content_type
    assert (ROOT / "README.md").read_text().strip() == metadata.description.strip()
    warnings = io.StringIO()
    shown = markdown.render(metadata.description, stream=warnings)
    assert ("", True) == (warnings.getvalue(), "<table>" in shown)
