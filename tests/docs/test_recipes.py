"""The six recipes of recipes.md, run from their own blocks."""

import json
import re
import shlex

import pytest
import yaml
from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.emulator import Emulator
from tests.support.documents import ROOT, blocks
from tests.support.singer import config, lines, record, run, schema, state

PAGE = ROOT / "docs" / "recipes.md"


def settings_of(recipe: str) -> dict:
    """Return the settings of the target in a recipe's only block that has any."""
    (settings,) = (each for each in yaml_of(recipe) if "cohorts" in each)
    return settings


def yaml_of(recipe: str) -> list[dict]:
    section = PAGE.read_text().partition(f"\n## {recipe}\n")[2].partition("\n## ")[0]
    texts = re.findall(r"^```yaml\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(text) for text in texts]


def view(stream: str, *uids: str, **columns: str):
    """Return the output of a tap that reads a whole view with a row count."""
    rows = [record(stream, uid=uid, row_count=len(uids), **columns) for uid in uids]
    return [schema(stream, ("uid", "row_count", *columns)), *rows]


@pytest.fixture
def sync(emulator, tmp_path):
    """Return a function that runs the target on a tap's messages, with one ledger for all runs."""

    def sync(settings: dict, *messages: dict, moengage: Emulator = emulator, **more):
        place = {"ledger_uri": str(tmp_path / "ledger")}
        return run(moengage, lines(*messages), **settings | place | more)

    return sync


def uids(emulator: Emulator, cohort_id: str) -> set[str]:
    return {uid for uid, _ in emulator.members(cohort_id)}


def people(start: int, end: int) -> list[str]:
    return [f"u-{number}" for number in range(start, end)]


def test_winback(emulator, sync):
    """The difference travels in two requests; a cut input and a wrong query remove no one."""
    settings = settings_of("A winback list every night")
    (stream,) = settings["cohorts"]
    assert sync(settings, *view(stream, *people(0, 300))).error is None
    second = sync(settings, *view(stream, *people(30, 450)))

    assert second.error is None
    assert set(people(30, 450)) == uids(emulator, "winback")
    assert 2 == len(second.accepted)
    cut = view(stream, *people(30, 450))[:-10]  # the rows count more than there are
    failed = sync(settings, *cut)
    assert ("count_mismatch", 1) == (failed.error.code, failed.report.exit_code)
    assert 3 == sync(settings, *view(stream, *people(300, 450))).report.exit_code  # a wrong query
    assert set(people(30, 450)) == uids(emulator, "winback")


def test_consent(emulator, sync, tmp_path):
    """Whoever withdrew is removed first and not added again; a list of too many sends nothing."""
    settings = settings_of("Withdrawn consent must take effect within the hour")
    assert settings["exclude_path"].startswith("/")
    (stream,) = settings["cohorts"]
    withdrawn = tmp_path / "withdrawn.csv"
    settings["exclude_path"] = str(withdrawn)
    withdrawn.write_text("uid\nu-900\n")
    assert sync(settings, *view(stream, *people(0, 100))).error is None

    withdrawn.write_text("uid\nu-900\nu-7\n")
    assert sync(settings, *view(stream, *people(0, 100))).error is None
    assert set(people(0, 100)) - {"u-7"} == uids(emulator, "newsletter")

    withdrawn.write_text("uid\n" + "".join(f"{uid}\n" for uid in people(0, 90)))
    failed = sync(settings, *view(stream, *people(0, 100)))
    assert "too_many_excluded" in {warning.code for warning in failed.report.warnings}
    assert 3 == failed.report.exit_code
    withdrawn.write_text("uid\nu-900\nu-7")
    assert "unfinished_file" == sync(settings, *view(stream, *people(0, 100))).error.code
    assert 99 == len(emulator.members("newsletter"))


def test_campaign_list(emulator, sync):
    """After a run with proof, nothing more is sent, whatever the view returns."""
    settings = settings_of("A campaign list once")
    (stream,) = settings["cohorts"]
    assert sync(settings, *view(stream, "u-1", "u-2")).error is None
    again = sync(settings, *view(stream, "u-2", "u-3"))

    assert again.error is None
    assert [] == again.attempts
    assert {"u-1", "u-2"} == uids(emulator, "launch-2026")


def test_many_audiences(emulator, sync):
    """The first run creates 500 audiences; later, without that setting, 51 new ones get nothing."""
    settings = settings_of("A table of 500 audiences")
    (stream,) = settings["cohorts"]

    def rows(count: int):
        columns = ("uid", "segment_id", "segment_name", "row_count")
        named = [
            record(stream, uid=f"u-{n}", segment_id=f"s{n}", segment_name=f"S {n}", row_count=count)
            for n in range(count)
        ]
        return [schema(stream, columns), *named]

    assert sync(settings, *rows(500)).error is None
    assert 500 == len(emulator.cohorts())
    del settings["max_new_cohorts"]
    more = sync(settings, *rows(551))
    assert 500 == len(emulator.cohorts())
    assert ("too_many_new_cohorts", 1) == (more.error.code, more.report.exit_code)


def test_two_regions(emulator, sync):
    """Each region's variant sends to its own workspace, and both share a ledger."""
    loaders = yaml_of("Two regions, two workspaces")[0]["plugins"]["loaders"]
    with Emulator(workspace_id="WORKSPACE_US") as other:
        for loader, moengage in zip(loaders, (emulator, other), strict=True):
            assert "target-moengage-cohort" == loader["inherit_from"]
            settings = loader["config"] | {"workspace_id": moengage.workspace_id}
            (stream,) = settings["cohorts"]
            done = sync(settings, *view(stream, loader["name"]), moengage=moengage)
            assert done.error is None
        assert {loaders[0]["name"]} == uids(emulator, "newsletter")
        assert {loaders[1]["name"]} == uids(other, "newsletter")


def test_moving_in(emulator, sync, tmp_path, monkeypatch):
    """After `adopt` with the page's file and command, a run sends the difference only."""
    settings = settings_of("Move from another tool")
    (stream,) = settings["cohorts"]
    monkeypatch.chdir(tmp_path)
    command, csv = (
        next(each.text for each in blocks(PAGE, language) if text in each.text)
        for language, text in (("sh", " adopt "), ("text", "uid\n"))
    )
    (tmp_path / "members.csv").write_text(csv)
    file = config(emulator, **settings, ledger_uri=str(tmp_path / "ledger"))
    (tmp_path / "target.json").write_text(json.dumps(file))
    done = CliRunner().invoke(cli, shlex.split(command.replace("\\\n", ""))[1:])
    assert 0 == done.exit_code, done.output
    ran = sync(settings, *view(stream, "u-2", "u-3", "u-4"), state({"done": True}))

    assert ran.error is None
    sent = [each.body for each in ran.accepted]
    assert {"u-1", "u-4"} == set(re.findall(r"u-\d", json.dumps(sent)))
