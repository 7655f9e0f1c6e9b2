"""`metrics_path`: a run's metrics as Prometheus text."""

import os
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from target_moengage_cohort.ledger.records import MemberSet
from target_moengage_cohort.sync.reporting import metrics_file
from tests.support.reports import cohort, report
from tests.support.singer import config, finish, lines, record, schema, start

TIMES = {"started_at": "2027-01-15T08:00:00.000Z", "finished_at": "2027-01-15T08:01:30.500Z"}
ENDED = 1_800_000_090.5
ODD = 'a "quoted" \\ name\nof two lines'


def samples(text):
    """Return all samples, as Prometheus' own parser reads them, by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert "gauge" == family.type
        for sample in family.samples:
            key = sample.name.removeprefix("moengage_cohort_"), *sample.labels.values()
            assert key not in found
            found[key] = sample.value
    return found


def test_the_metrics_of_a_run():
    """The text has the run's numbers, and those of each cohort with its id and stream; names may
    have any characters."""
    accepted = MemberSet(90, "0")
    one = cohort(ODD, "s", records=5, added=4, removed=3, rejected=2, in_doubt=1, accepted=accepted)
    two = cohort("b", "t", status="withheld", removals_withheld=8, removals_waiting=9)
    lost = cohort(None, "t", status="failed", rejected=1)
    numbers = {"requests": 7, "retries": 1, "throttled_seconds": 2.5, "partner": "acme"}
    found = samples(metrics_file.text(report(one, two, lost, lost, **TIMES | numbers), "", ""))
    run = {
        "last_run_timestamp_seconds": ENDED,
        "last_success_timestamp_seconds": ENDED,
        "last_run_success": 1,
        "last_run_exit_code": 0,
        "last_run_duration_seconds": 90.5,
        "last_run_requests": 7,
        "last_run_retries": 1,
        "last_run_throttled_seconds": 2.5,
        "last_run_warnings": 0,
    }
    assert (
        run.items()
        <= {key[0]: value for key, value in found.items() if key[1:] == ("acme",)}.items()
    )
    assert 90 == found["members", "acme", ODD, "s"]
    assert ("members", "acme", "b", "t") not in found
    names = ("cohort_success", "read_records", "added_members", "removed_members")
    names += ("rejected_records", "withheld_removals", "pending_removals", "unconfirmed_members")
    by_cohort = {
        labels: [found[f"last_run_{name}", "acme", *labels] for name in names]
        for labels in ((ODD, "s"), ("b", "t"), ("", "t"))
    }
    assert {
        (ODD, "s"): [1, 5, 4, 3, 2, 0, 0, 1],
        ("b", "t"): [0, 0, 0, 0, 0, 8, 9, 0],
        ("", "t"): [0, 0, 0, 0, 1, 0, 0, 0],
    } == by_cohort


@pytest.mark.parametrize("status", ["failed", "withheld"])
def test_a_run_that_fails_keeps_the_time_of_the_last_success(tmp_path, status):
    """A run that does not succeed says so, and keeps when the last one did, of its partner only."""
    path = tmp_path / "cohorts.prom"
    for partner in ("acme", ODD):
        metrics_file.write(report(**TIMES, partner=partner), str(path), "")
        later = {"started_at": TIMES["finished_at"], "finished_at": "2027-01-15T09:00:00Z"}
        for _ in range(2):
            bad = report(**later, partner=partner, status=status, exit_code=1)
            metrics_file.write(bad, str(path), "")
        found = samples(path.read_text())
        assert ENDED == found["last_success_timestamp_seconds", partner]
        assert 0 == found["last_run_success", partner]
    metrics_file.write(bad, str(path), "")
    other = report(**later, partner="other", status=status, exit_code=1)
    metrics_file.write(other, str(path), "")
    assert ("last_success_timestamp_seconds", "other") not in samples(path.read_text())


def test_the_file_is_replaced_whole_and_can_be_read(tmp_path):
    """Whatever the umask is, other users can read the file, and nothing else is left there."""
    path = tmp_path / "cohorts.prom"
    before = os.umask(0o077)
    try:
        for requests in (1, 2):
            metrics_file.write(report(**TIMES, requests=requests), str(path), "acme")
    finally:
        os.umask(before)
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)
    assert 2 == samples(path.read_text())["last_run_requests", "acme"]
    assert [path] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["no/m.prom", "file/m.prom", "folder.prom", "\0.prom"])
def test_a_path_that_cannot_be_written_is_a_warning(tmp_path, caplog, name):
    """Metrics that cannot be written fail nothing, and nothing of them is left."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.prom").mkdir()
    before = sorted(tmp_path.iterdir())
    metrics_file.write(report(**TIMES), f"{tmp_path}/{name}", "")
    assert ["metrics_unwritable"] == [each.code for each in caplog.records]
    assert before == sorted(tmp_path.iterdir())


def test_a_process_writes_them_however_it_ends(tmp_path, emulator):
    """The target writes metrics after success, a failure and refused settings, and none after a
    dry run; no identifier and no key is in them."""
    path = tmp_path / "cohorts.prom"
    settings = config(emulator, metrics_path=str(path))
    data = lines(schema("vip"), record("vip", uid="planted-1"))
    dry = finish(start(tmp_path, settings | {"dry_run": True}), data)
    assert (0, False) == (dry.code, path.exists())
    assert 0 == finish(start(tmp_path, settings), data).code
    found = samples(path.read_text())
    assert 1 == found["last_run_added_members", settings["partner"], "vip", "vip"]
    success = found["last_success_timestamp_seconds", settings["partner"]]
    text = path.read_text()
    assert "planted" not in text
    assert settings["data_api_key"] not in text
    broken = ({"data_center": "no"}, {"ledger_uri": "/dev/null/x"}, {"max_retry_seconds": 0})
    for number, change in enumerate(broken):
        emulator.fail_next(503, 100)
        assert 1 == finish(start(tmp_path, settings | change), data).code
        found = samples(path.read_text())
        assert (0, 1) == tuple(
            found[name, settings["partner"]] for name in ("last_run_success", "last_run_exit_code")
        ), number
        assert success == found["last_success_timestamp_seconds", settings["partner"]]


def test_a_refused_path_is_left_alone(tmp_path, emulator):
    """A file whose name is refused is not written, though the run is refused for it."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    assert 1 == finish(start(tmp_path, config(emulator, metrics_path=str(path))), lines()).code
    assert "mine" == path.read_text()
