"""`moengage-cohort init`: what it writes into new and existing projects, and what it leaves."""

import os
import shlex
import stat
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner
from dotenv import dotenv_values
from ruamel.yaml import YAML

from target_moengage_cohort.cli import cli, terminal
from target_moengage_cohort.cli.session import SessionTiming
from tests.support.documents import ROOT
from tests.support.terminals import OUTPUT_ONLY, STDIN_ONLY, Terminal

KEY, PASSWORD = "planted-key", "planted-password"
PREFIX = "TARGET_MOENGAGE_COHORT_"
LOADERS, UTILITIES = "loaders", "utilities"
VIP = 'public-vip cohort_id=vip cohort_name="VIP users" replication_key=updated_at'
NEWS = "public-news cohort_id=news cohort_name=News sync_mode=mirror expected_count_column=n"
TAPS = {
    "postgres": {"user": "reader", "database": "shop"},
    "snowflake": {"account": "a", "user": "u", "warehouse": "w", "database": "d"},
    "bigquery": {"google_application_credentials": "/etc/keys/bigquery.json"},
}
SECRETS = {
    f"{PREFIX}DATA_API_KEY": KEY,
    "TAP_POSTGRES_PASSWORD": PASSWORD,
    "TAP_SNOWFLAKE_PASSWORD": PASSWORD,
}
FILES = [".env", ".gitignore", "meltano.yml"]

# As `meltano init` and `meltano add` leave it, and a person's comments.
EXISTING = """\
default_environment: dev # ours
project_id: 01a22f18-2d3b-7ce3-951e-897aedc635ce
environments:
- name: dev
- name: prod
plugins:
  extractors:
  - name: tap-postgres   # the shop
    variant: meltanolabs
    pip_url: meltanolabs-tap-postgres
    config:
      host: db.example.com
      filter_schemas: [ public,  sales ]
    select:
    - "sales-*.*"

  # The warehouse; see the wiki.
  loaders:
  - name: target-jsonl
    variant: andyh1203
    pip_url: target-jsonl
    # config: {destination_path: out}

jobs:
    # every night
    - name: nightly
      tasks: ["tap-postgres target-jsonl"]
# the end
"""


class Site:
    """A directory in which the command is run."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.output = ""

    def run(self, *words, **timing):
        context = SessionTiming(**timing)
        result = CliRunner().invoke(cli, ["init", *words], obj=context, prog_name="moengage-cohort")
        self.output += result.output
        return result

    def options(self, warehouse="postgres", streams=(VIP, NEWS)):
        taps = [f"{name}={value}" for name, value in TAPS[warehouse].items()]
        words = ["--warehouse", warehouse, "--workspace-id", "w", "--data-center", "1"]
        words += ["--partner", "acme", "--emulator", self.url]
        words += [word for each in taps for word in ("--tap-setting", each)]
        return [*words, *(word for each in streams for word in ("--stream", each))]

    def setup(self, warehouse="postgres", streams=(VIP, NEWS), **timing):
        done = self.run(*self.options(warehouse, streams), "--no-check", **timing)
        assert 0 == done.exit_code, done.output
        return done

    def write(self, name, text):
        (self.folder / name).write_bytes(text.encode())

    def text(self, name="meltano.yml"):
        return (self.folder / name).read_bytes().decode()

    def plugins(self):
        return yaml.safe_load(self.text())["plugins"]

    def env(self):
        return dotenv_values(self.folder / ".env")

    def names(self):
        return sorted(each.name for each in self.folder.iterdir())

    def all(self):
        """Return what each file holds, with its mode and the time of its last change."""
        facts = {}
        for path in sorted(self.folder.iterdir()):
            status = path.lstat()
            facts[path.name] = (path.read_bytes(), status.st_mode, status.st_mtime_ns)
        return facts


@pytest.fixture
def site(tmp_path, emulator, monkeypatch):
    """A new directory without a terminal; at the end, nothing secret has been printed."""
    monkeypatch.setattr(terminal, "TERMINAL", str(tmp_path / "no-terminal"))
    for name in [each for each in os.environ if each.startswith(("TARGET_", "TAP_", "MELTANO_"))]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", os.defpath)  # without Meltano
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    made = Site(tmp_path / "project", emulator.url)
    yield made
    assert KEY not in made.output
    assert PASSWORD not in made.output
    assert "Traceback" not in made.output


def of_example(name):
    """Return the content of an example in docs/, and the values of --stream that make it."""
    content = yaml.safe_load((ROOT / "docs" / "examples" / name / "meltano.yml").read_text())
    (tap,) = content["plugins"]["extractors"]
    streams = []
    for stream, mapping in content["plugins"]["loaders"][0]["config"]["cohorts"].items():
        values = dict(mapping)
        if key := tap.get("metadata", {}).get(stream, {}).get("replication-key"):
            values["replication_key"] = key
        for each in tap["config"].get("streams", ()):
            values |= {"table": each["table"], "replication_key": each["datetime_key"]}
        streams.append(shlex.join([stream, *(f"{name}={each}" for name, each in values.items())]))
    return content, streams


def in_order(content):
    """Return a project with the options of settings in one order, and each plugin by its name."""
    for plugin in (each for kind in content["plugins"].values() for each in kind):
        for setting in plugin["settings"]:
            if "options" in setting:
                setting["options"] = sorted(map(str, setting["options"]))
    return content


@pytest.mark.parametrize("warehouse", TAPS)
def test_a_new_project_is_that_of_the_examples(site, warehouse):
    """In an empty directory, the project for the streams of an example equals the example: tap,
    loader, utility, jobs and schedule."""
    expected, streams = of_example(warehouse)
    site.setup(warehouse, streams)
    assert in_order(expected) == in_order(yaml.safe_load(site.text()))
    assert FILES == site.names()
    values = site.env()
    assert ("w", KEY, "01", "acme") == tuple(
        values[PREFIX + name] for name in ("WORKSPACE_ID", "DATA_API_KEY", "DATA_CENTER", "PARTNER")
    )
    assert str(site.folder / "ledger") == values[f"{PREFIX}LEDGER_URI"]
    assert [".env", ".meltano/", "ledger/"] == site.text(".gitignore").split()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_only_the_secrets_are_for_their_owner_alone(site, mask, mode):
    """New files have the mode that the umask gives them, so that a scheduler's user can read them;
    .env, which has the secrets, is for its owner alone."""
    main = "from target_moengage_cohort.cli import main; main()"
    words = [sys.executable, "-c", main, "init", *site.options(), "--no-check"]
    subprocess.run(words, umask=mask, start_new_session=True, check=True)
    modes = {name: stat.S_IMODE(fact[1]) for name, fact in site.all().items()}
    assert {".env": 0o600, ".gitignore": mode, "meltano.yml": mode} == modes


def test_an_existing_project_gets_what_it_lacks(site):
    """Each line of meltano.yml stays as it is, in its order; the loader, the utility, the jobs and
    a variant of the tap are added; the tap and other plugins are not touched."""
    site.write("meltano.yml", EXISTING)
    done = site.setup()
    rest = iter(site.text().splitlines(keepends=True))
    assert all(line in rest for line in EXISTING.splitlines(keepends=True))
    before, after = yaml.safe_load(EXISTING), yaml.safe_load(site.text())
    *others, variant = after["plugins"]["extractors"]
    assert before["plugins"]["extractors"] == others
    assert ("tap-postgres-cohorts", "tap-postgres") == (variant["name"], variant["inherit_from"])
    assert ["public-vip.*", "public-news.*"] == variant["select"]
    names = [each["name"] for each in after["plugins"][LOADERS]]
    assert ["target-jsonl", "target-moengage-cohort"] == names
    assert ["moengage-cohort"] == [each["name"] for each in after["plugins"][UTILITIES]]
    jobs = [each["name"] for each in after["jobs"]]
    assert ["nightly", "sync-cohorts", "sync-and-confirm"] == jobs
    assert "schedules" not in after
    assert not any(name.startswith("TAP_") for name in site.env())  # the project has them elsewhere
    assert "tap-postgres in meltano.yml" in done.output
    added = len(site.text().splitlines()) - len(EXISTING.splitlines())
    assert f"meltano.yml ({added} lines)" in done.output
    assert ["tap-postgres-cohorts target-moengage-cohort"] == after["jobs"][1]["tasks"]


def test_a_variant_of_the_tap_gets_later_cohorts(site):
    """The variant, not the shared tap, reads a cohort that is added later."""
    site.write("meltano.yml", EXISTING)
    site.setup()
    tap = site.plugins()["extractors"][0]
    site.run("--no-check", "--stream", "public-new cohort_id=new cohort_name=New sync_mode=mirror")
    former, *_, variant = site.plugins()["extractors"]
    assert tap == former
    assert "public-new.*" in variant["select"]
    assert {"replication-method": "FULL_TABLE"} == variant["metadata"]["public-new"]


@pytest.mark.parametrize("before", [None, EXISTING, EXISTING.replace("\n", "\r\n")])
def test_the_second_time_changes_nothing(site, before):
    """With the same options, every file keeps its bytes and the time of its last change."""
    if before is not None:
        site.write("meltano.yml", before)
    site.setup()
    facts = site.all()
    done = site.setup()
    assert facts == site.all()
    assert "Nothing to add" in done.output


def test_a_dry_run_writes_nothing(site):
    """It shows all that would be written but the secrets, neither those of the answers nor those of
    the files that are there."""
    site.write("meltano.yml", EXISTING.replace("host: db.example.com", f"password: {PASSWORD}"))
    site.write(".env", f"OTHER={PASSWORD}")
    facts = site.all()
    done = site.run(*site.options(), "--no-check", "--dry-run")
    assert 0 == done.exit_code, done.output
    assert facts == site.all()
    assert "cohort_name: VIP users" in done.output
    assert f"{PREFIX}PARTNER=acme" in done.output
    assert f"{PREFIX}DATA_API_KEY=***" in done.output


def test_variables_that_exist_keep_their_values(site):
    """.env only grows by names that it lacks, behind a line break if its last line has none; a
    value that differs from an option is named. Others can no longer read the file."""
    before = f"# ours\nexport {PREFIX}PARTNER='other' # kept\nLAST=1"
    site.write(".env", before)
    (site.folder / ".env").chmod(0o644)
    site.write(".gitignore", "/.meltano\n*.log\n")
    done = site.setup()
    assert site.text(".env").startswith(f"{before}\n")
    assert 1 == site.text(".env").count(f"{PREFIX}PARTNER")
    assert ("other", "1", "w") == tuple(
        site.env()[name] for name in (f"{PREFIX}PARTNER", "LAST", f"{PREFIX}WORKSPACE_ID")
    )
    assert f"{PREFIX}PARTNER in .env" in done.output
    assert 0o600 == stat.S_IMODE((site.folder / ".env").stat().st_mode)
    assert "/.meltano\n*.log\n.env\nledger/\n" == site.text(".gitignore")


def test_a_variable_without_a_value_is_refused(site):
    """A name in .env that has no value is not taken for missing, and nothing is written."""
    site.write(".env", f"{PREFIX}PARTNER=\n")
    facts = site.all()
    done = site.run(*site.options(), "--no-check")
    assert 2 == done.exit_code
    assert f"{PREFIX}PARTNER" in done.stderr
    assert facts == site.all()


def test_a_linked_file_stays_a_link(site, tmp_path):
    """A .env that is a symbolic link grows where it is."""
    (tmp_path / "real").write_text("A=1\n")
    (site.folder / ".env").symlink_to(tmp_path / "real")
    site.setup()
    assert (site.folder / ".env").is_symlink()
    assert (tmp_path / "real").read_text().startswith(f"A=1\n{PREFIX}")


def test_a_project_is_found_from_below(site, monkeypatch):
    """In a directory of a project, the project's files grow, as Meltano would find them."""
    site.write("meltano.yml", EXISTING)
    (site.folder / "below").mkdir()
    monkeypatch.chdir(site.folder / "below")
    site.setup()
    assert [] == [each.name for each in (site.folder / "below").iterdir()]
    assert str(site.folder / "ledger") == site.env()[f"{PREFIX}LEDGER_URI"]


def test_without_a_terminal_it_lists_all_that_is_missing(site, monkeypatch):
    """The exit code is that of wrong usage, and nothing is written."""
    monkeypatch.delenv(f"{PREFIX}DATA_API_KEY")
    done = site.run()
    assert 2 == done.exit_code
    for name in ("--warehouse", "--workspace-id", f"{PREFIX}DATA_API_KEY", "--data-center"):
        assert name in done.stderr
    assert "--stream" in done.stderr
    done = site.run("--warehouse", "postgres", "--emulator", site.url, "--stream", "public-vip")
    assert 2 == done.exit_code
    for name in ("--partner", "user=", "database=", "cohort_id=", "cohort_name="):
        assert name in done.stderr
    assert "--workspace-id" not in done.stderr  # the emulator's is known
    assert [] == site.names()


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (("--stream", "public-x cohort_id=x cohort_name=X cohort_nam=y"), 2),
        (("--stream", "public-x cohort_id=x cohort_name='X"), 2),
        (("--stream", "public-x cohort_id=$HOME cohort_name=X"), 2),
        (("--tap-setting", f"password={PASSWORD}"), 2),
        (("--tap-setting", "hosts=x"), 2),
        (("--data-center", "7"), 2),
        (("--warehouse", "oracle"), 2),
        (("--stream", "public-x cohort_id=x cohort_name=X sync_mode=mirrored"), 1),
        (("--stream", "public-x cohort_id=x cohort_name=a|b"), 1),
        (("--stream", "public-x cohort_id=vip cohort_name=X"), 1),  # that of another stream
        (("--partner", "${HOME}"), 1),
        (("--emulator", "http://example.com"), 1),
    ],
    ids=str,
)
def test_invalid_values_are_refused(site, word, code):
    """Nothing is written if an option has a value with which no run could work; wrong usage and
    invalid settings have the exit codes of all commands."""
    done = site.run(*site.options(), "--no-check", *word)
    assert code == done.exit_code
    assert [] == site.names()


def test_a_mirror_needs_a_tap_that_reads_all_rows(site):
    """BigQuery's tap reads from its bookmark on, so a mirror of it is refused."""
    done = site.run(*site.options("bigquery", [f"{NEWS} table=a.b replication_key=u"]))
    assert 2 == done.exit_code
    assert [] == site.names()


def test_refused_credentials_stop_it(site):
    """Credentials that MoEngage refuses are not written, unless the check is left out; then it says
    so."""
    done = site.run(*site.options())
    assert 1 == done.exit_code
    assert "FAIL" in done.output
    assert [] == site.names()
    assert "not tried" in site.setup().output


def test_accepted_credentials_are_tried(site, emulator, monkeypatch):
    """The emulator's own credentials are taken from --emulator, and tried again with a cohort that
    is added later; the tap, which is not installed, is said not to have been tried."""
    monkeypatch.delenv(f"{PREFIX}DATA_API_KEY")
    words = site.options()
    at = words.index("--workspace-id")
    done = site.run(*words[:at], *words[at + 2 :])
    assert 0 == done.exit_code, done.output
    assert "credentials: workspace" in done.output
    assert "tap: not tried" in done.output
    assert emulator.data_api_key == site.env()[f"{PREFIX}DATA_API_KEY"]
    assert "credentials: workspace" in site.run("--stream", "x cohort_id=x cohort_name=X").output
    assert 0 == emulator.totals().requests


def test_a_cohort_is_added_to_the_loader_and_the_utility(site):
    """In a project that has the loader, --stream adds its mapping, once where the two share their
    configuration; cohorts that are there stay as they are, and no credential is asked for."""
    site.setup(streams=[VIP])
    before, env = site.text(), site.all()[".env"]
    changed = VIP.replace("cohort_id=vip", "cohort_id=other")
    done = site.run("--no-check", "--stream", NEWS, "--stream", changed)
    assert 0 == done.exit_code, done.output
    rest = iter(site.text().splitlines(keepends=True))
    assert all(line in rest for line in before.splitlines(keepends=True))
    (loader,), (utility,) = (site.plugins()[kind] for kind in (LOADERS, UTILITIES))
    assert ["vip", "news"] == [each["cohort_id"] for each in loader["config"]["cohorts"].values()]
    assert loader["config"] == utility["config"]
    assert 1 == site.text().count("cohort_id: news")
    assert env == site.all()[".env"]
    assert "public-vip in cohorts" in done.output
    (tap,) = site.plugins()["extractors"]
    assert ["public-vip.*", "public-news.*"] == tap["select"]
    assert {"replication-method": "FULL_TABLE"} == tap["metadata"]["public-news"]


@pytest.mark.parametrize("warehouse", TAPS)
def test_adding_cohorts_later_is_adding_them_first(site, warehouse):
    """A project to which streams were added one after the other is that with all from the start,
    but for the step that confirms a mirror's removals."""
    _, streams = of_example(warehouse)
    other = "other-table cohort_id=o cohort_name=O sync_mode=add replication_key=u table=o.o"
    site.setup(warehouse, [other, *streams])
    whole = yaml.safe_load(site.text())
    for path in site.folder.iterdir():
        path.unlink()
    site.setup(warehouse, [other])
    for stream in streams:
        assert 0 == site.run("--no-check", "--stream", stream).exit_code
    grown = yaml.safe_load(site.text())
    for content in (whole, grown):
        content["plugins"][UTILITIES][0]["commands"].pop("confirm", None)
        content["jobs"] = content["jobs"][:1]
        (tap,) = content["plugins"]["extractors"]
        for values in tap["config"].values():
            if isinstance(values, list):
                values.sort(key=str)
    assert whole == grown


def test_a_utility_is_added_to_a_loader_that_is_there(site):
    """It gets a copy of the loader's configuration without its secrets; each gets a new cohort."""
    loader = {
        "name": "target-moengage-cohort",
        "config": {"max_removal_percent": 5, "data_api_key": KEY, "cohorts": {"x": {}}},
    }
    text = yaml.safe_dump({"plugins": {LOADERS: [loader]}})
    site.write("meltano.yml", text)
    done = site.run("--stream", NEWS, "--warehouse", "tap-mysql")
    assert 0 == done.exit_code, done.output
    (loader,), (utility,) = (site.plugins()[kind] for kind in (LOADERS, UTILITIES))
    assert {"x", "public-news"} == set(loader["config"]["cohorts"])
    assert loader["config"] == utility["config"] | {"data_api_key": KEY}
    assert ["sync-cohorts", "sync-and-confirm"] == [
        each["name"] for each in yaml.safe_load(site.text())["jobs"]
    ]
    assert 1 == site.text().count(KEY)
    facts = site.all()
    assert 0 == site.run("--stream", NEWS, "--warehouse", "tap-mysql").exit_code
    assert facts == site.all()


def test_plugins_of_included_files_are_there(site):
    """A loader in a file that meltano.yml includes is not added a second time; what belongs there
    is shown to be pasted."""
    site.write("meltano.yml", "include_paths: [more/*.yml]\n" + EXISTING)
    (site.folder / "more").mkdir()
    (site.folder / "more" / "m.yml").write_text(
        "plugins:\n  loaders:\n  - name: target-moengage-cohort\n    config: {cohorts: {x: {}}}\n"
    )
    done = site.run("--stream", NEWS, "--no-check")
    assert 1 == done.exit_code
    assert "cohort_id: news" in done.stderr
    assert ["target-jsonl"] == [each["name"] for each in site.plugins()[LOADERS]]


def test_a_block_without_a_place_is_shown(site):
    """Where a list is written on one line, nothing is inserted; the block is shown to be pasted,
    and the exit code says that something is left to do."""
    site.write("meltano.yml", "plugins:\n  loaders: []\n")
    done = site.run(*site.options(), "--no-check")
    assert 1 == done.exit_code
    assert "- name: target-moengage-cohort" in done.stderr
    assert site.text().startswith("plugins:\n  loaders: []\n")
    assert [] == site.plugins()[LOADERS]


@pytest.mark.parametrize("text", ["a: [\n", "- a\n", "a: !x 1\n", "a: 1\n---\nb: 1\n", "a: \x01\n"])
def test_an_unreadable_project_is_left_alone(site, text):
    """A meltano.yml that is no mapping in YAML is an error without a traceback."""
    site.write("meltano.yml", text)
    done = site.run(*site.options(), "--no-check")
    assert 1 == done.exit_code
    assert ["meltano.yml"] == site.names()


@pytest.mark.parametrize(
    "name", ["yes", "null", "0123", "1e3", "0o17", "1_000", "2026-01-01", "a: b", "a #b", "'", "é"]
)
def test_identifiers_stay_text(site, name):
    """Whatever an identifier looks like, YAML 1.1 and 1.2 read it as the text that it is."""
    site.setup(streams=[shlex.join(["s-t", f"cohort_id={name}", "cohort_name=X"])])
    for read in (yaml.safe_load, YAML(typ="safe").load):
        (mapping,) = read(site.text())["plugins"][LOADERS][0]["config"]["cohorts"].values()
        assert name == mapping["cohort_id"]


@pytest.mark.parametrize("value", ["a b", "a'b", 'a"b', "a\\b", "a$b", "#a", " a ", "é", "a\nb"])
def test_passwords_arrive_as_they_are(site, monkeypatch, value):
    """Meltano's reader of .env finds the password that was given."""
    monkeypatch.setenv("TAP_POSTGRES_PASSWORD", value)
    site.setup()
    assert value == site.env()["TAP_POSTGRES_PASSWORD"]


KILLED = """
import os, signal, sys
from target_moengage_cohort.cli.init_command import init
from target_moengage_cohort.cli.session import SessionTiming
left = int(sys.argv.pop(1))
def step(name):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
init(obj=SessionTiming(step=step))
"""


@pytest.mark.parametrize("before", [None, EXISTING], ids=["new", "existing"])
def test_a_kill_leaves_whole_files(site, before):
    """Killed between any two steps, each file is as before or complete, and the next time adds the
    rest."""
    if before is not None:
        site.write("meltano.yml", before)
    start = {name: fact[0] for name, fact in site.all().items()}
    site.setup()
    whole = {name: fact[0] for name, fact in site.all().items()}
    kills = 0
    while True:
        for path in site.folder.iterdir():
            path.unlink()
        for name, content in start.items():
            (site.folder / name).write_bytes(content)
        words = [sys.executable, "-c", KILLED, str(kills + 1), *site.options(), "--no-check"]
        done = subprocess.run(words, capture_output=True, start_new_session=True, check=False)
        if done.returncode == 0:
            break
        kills += 1
        assert -9 == done.returncode, done.stderr
        for name, fact in site.all().items():
            if not name.endswith(".part"):
                assert fact[0] in {start.get(name), whole[name]}
            assert not name.startswith(".env") or 0o600 == stat.S_IMODE(fact[1])
        site.setup()
        assert whole == {name: fact[0] for name, fact in site.all().items()}
    assert 6 == kills


CONVERSATION = [
    (b"Warehouse", "postgres"),
    (b"workspace ID", "demo-workspace"),
    (b"Data API key", KEY),
    (b"Data center", "9"),
    (b"Data center", "dc-01"),
    (b"never change it", None),
    (b"Partner", "acme"),
    (b"Host", ""),
    (b"Port", ""),
    (b"User", "reader"),
    (b"Password", PASSWORD),
    (b"Database", "shop"),
    (b"Stream", "public-vip_users"),
    (b"Cohort ID", ""),
    (b"Cohort name", "a|b"),
    (b"Cohort name", ""),
    (b"Sync mode", "mirror"),
    (b"user ID", ""),
    (b"Membership", ""),
    (b"Expected count", "row_count"),
    (b"Another stream", ""),
]


@pytest.mark.parametrize("streams", [STDIN_ONLY, OUTPUT_ONLY])
def test_it_asks_at_the_terminal(site, monkeypatch, streams):
    """Whatever the standard streams are, it asks for each value at the terminal, again where one is
    not valid, and shows no secret."""
    for name in SECRETS:
        monkeypatch.delenv(name)
    there = Terminal(site.folder, ["init", "--no-check"], streams)
    for question, answer in CONVERSATION:
        there.wait_for(question)
        site.output += there.seen.decode()  # with the echo of the last answer
        there.seen = there.seen.partition(question)[2]
        if answer is not None:
            there.wait_for(b": ")
            there.seen = b""
            there.type(f"{answer}\n".encode())
    code, output, errors = there.end()
    site.output += output + errors + there.seen.decode()
    assert (0, "") == (code, errors)
    expected = {"cohort_id": "vip_users", "cohort_name": "Vip users", "sync_mode": "mirror"}
    expected["expected_count_column"] = "row_count"
    (loader,) = site.plugins()[LOADERS]
    assert {"public-vip_users": expected} == loader["config"]["cohorts"]
    env = site.env()
    assert (KEY, PASSWORD) == (env[f"{PREFIX}DATA_API_KEY"], env["TAP_POSTGRES_PASSWORD"])
    assert ("01", "5432") == (env[f"{PREFIX}DATA_CENTER"], env["TAP_POSTGRES_PORT"])


@pytest.mark.parametrize(("answer", "names"), [("y", FILES), ("n", [])])
def test_refused_credentials_can_be_written_by_a_person(site, answer, names):
    """At a terminal, answers are not lost: the files are written if the person says so. The exit
    code says that the credentials were refused."""
    words = [*site.options(), "--tap-setting", "host=h", "--tap-setting", "port=1"]
    there = Terminal(site.folder, ["init", *words], STDIN_ONLY)
    there.wait_for(b"[y/N]")
    there.type(f"{answer}\n".encode())
    code, output, errors = there.end()
    site.output += output + errors
    assert 1 == code
    assert [*names, *(["state"] if "state" in site.names() else [])] == site.names()


@pytest.mark.parametrize(("keys", "code"), [(b"\x03", 130), (b"\x04", 1)])
def test_an_interrupt_writes_nothing(site, keys, code):
    """Ctrl-C ends a question with 130, the end of the input with 1; no file is there."""
    there = Terminal(site.folder, ["init"], STDIN_ONLY)
    there.wait_for(b"Warehouse")
    there.type(keys)
    assert code == there.end()[0]
    assert [] == site.names()
