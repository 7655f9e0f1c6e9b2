"""The files in .github: valid, safe, and consistent with the rest of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.name: path.read_text() for path in sorted(GITHUB.glob("workflows/*.yml"))}
JOBS = {
    (file, name): job
    for file, text in WORKFLOWS.items()
    for name, job in yaml.safe_load(text)["jobs"].items()
}
PACKAGE = metadata.metadata("target-moengage-cohort")
CLASSIFIERS = PACKAGE.get_all("Classifier") or []
PUBLISHER = re.search(r"gh-action-pypi-publish@(\w+)", WORKFLOWS["release.yml"]).group(1)
PYTHONS = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(CLASSIFIERS))

SCHEMA = "check-jsonschema --builtin-schema"
CHECKS = {  # what must end with 0 in a folder that holds .github
    "actionlint": "actionlint -shellcheck= -pyflakes= .github/workflows/*.yml",
    "zizmor": "zizmor --offline --strict-collection --persona=auditor .github",
    "workflows": f"{SCHEMA} vendor.github-workflows .github/workflows/*.yml",
    "timeouts": f"{SCHEMA} custom.github-workflows-require-timeout .github/workflows/*.yml",
    "dependabot": f"{SCHEMA} vendor.dependabot .github/dependabot.yml",
    "forms": f"{SCHEMA} vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml",
    "chooser": f"{SCHEMA} vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml",
}


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a command as GitHub does, with our environment's programs before all others."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "NO_COLOR": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def copy_with(folder: Path, file: str, old: str, new: str) -> None:
    """Copy .github to a directory, and change the first occurrence of `old` in one of its files."""
    shutil.copytree(GITHUB, folder / ".github")
    path = folder / ".github" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def step(file: str, job: str, name: str) -> str:
    """Return the script of a workflow's step."""
    return next(step["run"] for step in JOBS[file, job]["steps"] if step.get("name") == name)


@pytest.mark.parametrize("check", CHECKS)
def test_what_github_reads_passes(check):
    """actionlint and zizmor find nothing, and each file has the form that GitHub takes."""
    done = shell(CHECKS[check], ROOT)
    assert (0, check) == (done.returncode, check), done.stdout


@pytest.mark.parametrize("check", ["actionlint", "zizmor", "workflows", "timeouts"])
def test_the_example_passes(tmp_path, check):
    """The workflow of docs/examples passes the same checks, with the actions that CI has."""
    example = ROOT / "docs" / "examples" / "github" / "plan.yml"
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(example, folder)
    done = shell(CHECKS[check], tmp_path)
    assert (0, check) == (done.returncode, check), done.stdout
    used = set(re.findall(r"uses: (.*)", example.read_text()))
    assert used <= set(re.findall(r"uses: (.*)", "".join(WORKFLOWS.values())))


@pytest.mark.parametrize(
    ("check", "file", "old", "new", "finding"),
    [
        ("actionlint", "workflows/ci.yml", "needs.build.outputs.newest", "needs.bild.x", '"bild"'),
        ("actionlint", "workflows/release.yml", "needs: version", "needs: versions", "versions"),
        ("zizmor", "workflows/ci.yml", "persist-credentials: false", "clean: true", "artipacked"),
        ("zizmor", "workflows/ci.yml", "permissions: {}", "", "excessive-permissions"),
        ("zizmor", "workflows/ci.yml", "make lint", "${{ github.head_ref }}", "template-injection"),
        ("zizmor", "workflows/release.yml", f"@{PUBLISHER}", "@release/v1", "unpinned-uses"),
        ("zizmor", "dependabot.yml", "default-days: 7", "default-days: 0", "dependabot-cooldown"),
        ("workflows", "workflows/ci.yml", "runs-on:", "runs-at:", "runs-at"),
        ("timeouts", "workflows/ci.yml", "    timeout-minutes: 10\n", "", "timeout-minutes"),
        ("dependabot", "dependabot.yml", "interval: monthly", "interval: hourly", "hourly"),
        ("forms", "ISSUE_TEMPLATE/bug.yml", "type: textarea", "type: textbox", "textbox"),
        ("forms", "ISSUE_TEMPLATE/idea.yml", "description:", "about:", "about"),
        ("chooser", "ISSUE_TEMPLATE/config.yml", "false", "perhaps", "perhaps"),
    ],
)
def test_each_check_finds_a_fault(tmp_path, check, file, old, new, finding):
    """The same checks fail on a copy that has a fault, and name it."""
    copy_with(tmp_path, file, old, new)
    done = shell(CHECKS[check], tmp_path)
    assert 0 != done.returncode
    assert finding in done.stdout


def test_what_is_left_out_of_a_test_run_is_there():
    """Every path that the workflows ignore in pytest exists in this project."""
    ignored = [path for text in WORKFLOWS.values() for path in re.findall(r"--ignore=(\S+)", text)]
    assert ignored
    assert [] == [path for path in ignored if not (ROOT / path).exists()]


def loose(text: str) -> list[str]:
    """Return the external actions of a workflow without a commit's hash and version."""
    used = re.findall(r"^[\s-]*uses: (?!\$/)(.+)$", text, re.MULTILINE)
    return [u for u in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)]


def test_actions_are_pinned():
    """Each action is pinned to a commit and its version, consistently."""
    assert [] == [use for text in WORKFLOWS.values() for use in loose(text)]
    assert 1 == len(loose("  - uses: actions/checkout@v7\n  - uses: $/.github/workflows/ci.yml"))
    used = set(re.findall(r"uses: ([^$].*)", "".join(WORKFLOWS.values())))
    assert len(used) == len({use.partition("@")[0] for use in used})


def test_only_publishing_may_write():
    """Only the job that publishes may write: an identity token for PyPI. It runs none of our code,
    waits for the tests, and has an environment with optional approval."""
    granted = {
        (name, right)
        for (_, name), job in JOBS.items()
        for right, level in job["permissions"].items()
        if level != "read"
    }
    assert {("publish", "id-token")} == granted
    publish = JOBS["release.yml", "publish"]
    assert ("ci", "pypi") == (publish["needs"], publish["environment"])
    used = [step["uses"].partition("@")[0] for step in publish["steps"]]
    assert ["actions/download-artifact", "pypa/gh-action-pypi-publish"] == used


def outputs(folder: Path) -> dict[str, str]:
    """Return the build job's outputs for a directory's pyproject.toml."""
    script, target = step("ci.yml", "build", "Read the Pythons from the classifiers"), "told.txt"
    assert 0 == shell(script, folder, GITHUB_OUTPUT=target).returncode
    text = (folder / target).read_text()
    (folder / target).unlink()
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_matrix_is_that_of_the_classifiers(tmp_path):
    """The wheel is tested with every Python and system in the classifiers."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    result = outputs(tmp_path)
    assert PYTHONS == json.loads(result["pythons"])
    assert max(PYTHONS, key=lambda version: int(version[2:])) == result["newest"]
    build, wheel = JOBS["ci.yml", "build"], JOBS["ci.yml", "wheel"]
    assert build["outputs"] == {
        name: f"${{{{ steps.classifiers.outputs.{name} }}}}" for name in result
    }
    matrix = wheel["strategy"]["matrix"]
    assert "${{ fromJSON(needs.build.outputs.pythons) }}" == matrix["python"]
    systems = [*matrix["os"], *(more["os"] for more in matrix["include"])]
    named = [name for name in CLASSIFIERS if name.startswith("Operating System")]
    assert ["ubuntu-latest", "macos-latest"] == systems
    assert {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"} == {*named}


def test_another_classifier_is_another_python(tmp_path):
    """The matrix follows pyproject.toml, the only file that names a version of Python."""
    text = (ROOT / "pyproject.toml").read_text()
    last = f'  "Programming Language :: Python :: {PYTHONS[-1]}",\n'
    (tmp_path / "pyproject.toml").write_text(text.replace(last, f"{last}{last[:-4]}9{last[-3:]}"))
    result = outputs(tmp_path)
    assert [*PYTHONS, f"{PYTHONS[-1][:-1]}9"] == json.loads(result["pythons"])
    assert [] == re.findall(r"\b3\.\d+\b", "".join(WORKFLOWS.values()))


@pytest.mark.parametrize(
    ("tag", "code"),
    [("v1.2.3", 0), ("v1.2.3rc1", 0), ("1.2.3", 1), ("v1.2", 1), ("v1.2.4", 1), ("v1.2.3 4", 1)],
)
def test_a_release_is_in_the_changelog(tmp_path, tag, code):
    """A release fails before the build if its tag is not a version, or if CHANGELOG.md has no
    section for it; the message names the tag's version."""
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3rc1] - 2026-01-01\n## [1.2.3] - 2026-01-02\n")
    script = step("release.yml", "version", "Look for the version in the changelog")
    done = shell(script, tmp_path, GITHUB_REF_NAME=tag)
    assert code == done.returncode
    assert (code == 1) == ("::error::" in done.stdout and tag.removeprefix("v") in done.stdout)


@pytest.mark.parametrize(("tag", "code"), [("v1.2.3", 0), ("v1.2.4", 1)])
def test_a_release_has_the_tag_of_its_version(tmp_path, tag, code):
    """A release whose tag is not the version that was built fails before the tests, and names
    both."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "target_moengage_cohort-1.2.3.tar.gz").touch()
    script = step("ci.yml", "build", "Compare the version with the tag")
    done = shell(script, tmp_path, GITHUB_REF_NAME=tag)
    assert code == done.returncode
    assert (code == 1) == (tag in done.stdout and "1.2.3.tar.gz" in done.stdout)


def test_the_build_knows_the_tags():
    """The job that builds fetches tags, because the version comes from them."""
    (checkout,) = [
        one for one in JOBS["ci.yml", "build"]["steps"] if "checkout" in one.get("uses", "")
    ]
    assert 0 == checkout["with"]["fetch-depth"]


def test_the_five_commands_of_contributing_are_there():
    """The five commands of CONTRIBUTING name existing make targets and tests."""
    block = re.search(r"```sh\n(.*?)```", (GITHUB / "CONTRIBUTING.md").read_text(), re.DOTALL)
    commands = [line.partition("#")[0].split() for line in block.group(1).splitlines()]
    assert 5 == len(commands)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert ["environments", "format", "test"] == [
        command[1] for command in commands if command[0] == "make" and command[1] in targets
    ]
    assert all((ROOT / command[-1]).is_file() for command in commands if "pytest" in command)
