"""The commands of README and docs/, run verbatim."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.documents import PAGES, ROOT, Block, blocks, name
from tests.support.newcomer import EXAMPLES, Newcomer
from tests.support.objects import object_store
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import plain_environment, program
from tests.support.servers import free_port
from tests.support.singer import lines, record, schema

DOCS = ROOT / "docs"


def shell(page: Path) -> list[Block]:
    """Return the blocks of a page that are run."""
    return [block for block in blocks(page, "sh") if block.reason is None]


@pytest.fixture
def emulated() -> Iterator[Emulator]:
    """An emulator that accepts README's credentials."""
    with Emulator(workspace_id="your-workspace-id", data_api_key="your-key") as running:
        yield running


@pytest.fixture
def newcomer(tmp_path: Path, postgres: Postgres, emulated: Emulator) -> Newcomer:
    return Newcomer(tmp_path, postgres, emulated)


def test_five_minutes_of_readme(newcomer: Newcomer) -> None:
    """README's steps work in order. The dry run sends nothing; the first run makes both cohorts
    equal the result of SQL, with ledgers in the project's directory. A second run sends nothing,
    and the pipe does the same. Each command prints what README shows below it."""
    newcomer.follow_readme()
    ignored = (newcomer.folder / ".gitignore").read_text().split()
    requests = []
    (check,) = shell(DOCS / "troubleshooting.md")
    said = newcomer.run(check.text)
    assert "VIP users" in said
    assert "Newsletter readers" in said
    shown = 0
    for block in blocks(ROOT / "README.md", "sh", "text"):
        if block.language == "sh":
            printed = None if block.reason else newcomer.run(block.text)
            requests.append((("DRY_RUN" in block.text), newcomer.moengage.totals().requests))
        elif printed is not None:
            shown += 1
            expected = block.text.replace("http://127.0.0.1:8025", newcomer.moengage.url)
            parts = [part for line in expected.splitlines() for part in line.split("…")]
            assert [] == [part for part in parts if part not in printed], printed
    assert 4 == shown
    assert [0] == [count for is_dry, count in requests if is_dry]
    assert newcomer.wanted("vip") == newcomer.accepted("vip")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")
    assert {".env", ".meltano/", "ledger/"} == set(ignored)
    assert 2 == len(list((newcomer.folder / "ledger").rglob("members-*.duckdb")))
    sent = newcomer.moengage.totals().requests
    newcomer.run("meltano run tap-postgres target-moengage-cohort")
    assert 1 == newcomer.reported("vip")["unchanged"]
    assert sent == newcomer.moengage.totals().requests
    assert "bookmarks" in json.loads((newcomer.folder / "new-state.json").read_text())


def test_the_ways_of_proof(newcomer: Newcomer) -> None:
    """Each way of proof in its page permits 15 of 100 removals, which the guard would withhold, and
    the report names the way. It withholds 25, and Meltano exits with 1, until the override releases
    them, with and without Meltano."""
    newcomer.follow_readme()
    own_count = {"expected_count_column": None}
    newcomer.configure("target.json", own_count)
    newcomer.configure("deferred.json", own_count, removals="deferred")
    exit_code, step, in_a_pipe = shell(DOCS / "completeness.md")
    (overriding,) = [
        block for block in blocks(DOCS / "completeness.md", "sh") if "--withheld" in block.text
    ]
    newcomer.run(exit_code.text)

    newcomer.unsubscribe(15)
    newcomer.run(exit_code.text)
    assert ("tap_exit", 15) == told(newcomer, "complete", "removed")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")

    newcomer.unsubscribe(15)
    newcomer.run(step.text)
    assert (15, 0) == told(newcomer, "removed", "removals_waiting")  # in the last step's report
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")

    newcomer.unsubscribe(15)
    newcomer.run(in_a_pipe.text)
    assert (15, 0) == told(newcomer, "removed", "removals_waiting")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")

    newcomer.unsubscribe(25)
    run = "meltano run tap-postgres target-moengage-cohort"
    newcomer.run(f"code=0; {run} || code=$?; test $code = 1")
    assert (25,) == told(newcomer, "removals_withheld")
    assert "withheld" == json.loads(newcomer.report.read_text())["status"]

    for command in overriding.text.splitlines():
        (plan_id,) = told(newcomer, "plan_id")
        newcomer.run(command.replace("3f9a1c07be52", plan_id))
        assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")
        newcomer.unsubscribe(25)
        newcomer.run(f"code=0; {run} || code=$?; test $code = 1")


def told(newcomer: Newcomer, *fields: str) -> tuple:
    reported = newcomer.reported("newsletter")
    return tuple(reported[field] for field in fields)


def test_deferred_removals_by_a_job(newcomer: Newcomer) -> None:
    """With operations.md's .env for production, the example's second job adds members, and removes
    members in its last step."""
    newcomer.follow_readme()
    (production,) = [b for b in blocks(DOCS / "operations.md", "ini") if "REMOVALS" in b.text]
    (newcomer.folder / "kept").mkdir()
    del newcomer.environment["TARGET_MOENGAGE_COHORT_REPORT_PATH"]
    newcomer.report = newcomer.folder / "kept" / "report.json"
    text = production.text.replace("/var/lib/moengage-cohort", str(newcomer.folder / "kept"))
    text = text.replace("# TARGET_", "TARGET_")
    last = "TARGET_MOENGAGE_COHORT_LEDGER_CREATE=false\n"  # for after the first run
    assert last in text
    with (newcomer.folder / ".env").open("a") as env:
        env.write(text.replace(last, ""))
    newcomer.run("meltano run sync-and-confirm")
    with (newcomer.folder / ".env").open("a") as env:
        env.write(last)
    newcomer.unsubscribe(15)
    newcomer.run("meltano run sync-and-confirm")
    assert (15, 0) == told(newcomer, "removed", "removals_waiting")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")
    assert newcomer.wanted("vip") == newcomer.accepted("vip")
    assert list((newcomer.folder / "kept" / "ledger").rglob("*.duckdb"))


def test_the_commands_of_operations(newcomer: Newcomer) -> None:
    """The commands of operations.md run in order, and leave both cohorts equal to the result of
    SQL."""
    newcomer.follow_readme()
    page = DOCS / "operations.md"
    newcomer.write("skip.json", {"on_reject": "skip", "rejects_path": "rejects.singer"})
    adopted, *_ = [block for block in blocks(page, "text") if "anonymous_id" in block.text]
    (newcomer.folder / "members.csv").write_text(adopted.text)
    (newcomer.folder / "ids.csv").write_text("uid\nu-1\nu-2\n")
    for block in shell(page):
        if "rejects.singer" in block.text:
            newcomer.run(REJECT)
        newcomer.run(block.text)
    assert newcomer.wanted("vip") == newcomer.accepted("vip")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter") - {"mended"}
    assert "mended" in newcomer.accepted("newsletter")


REJECT = """
python3 - > rows.singer <<'END'
import json
columns = {"uid": {}, "row_count": {}}
schema = {"type": "SCHEMA", "stream": "public-newsletter", "key_properties": []}
print(json.dumps(schema | {"schema": {"type": "object", "properties": columns}}))
row = {"uid": None, "row_count": 1}
print(json.dumps({"type": "RECORD", "stream": "public-newsletter", "record": row}))
END
target-moengage-cohort --config target.json --config skip.json < rows.singer || test $? -eq 1
sed -i 's/"uid":null/"uid":"mended"/' rejects.singer
"""


def test_the_emulator_in_ci(tmp_path: Path) -> None:
    """emulator.md's example passes, and fails if a member is missing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (block,) = shell(DOCS / "emulator.md")
    text = block.text.replace("8025", str(port))
    environment = plain_environment(tmp_path / "home")
    folders = {str(Path(program(each)).parent) for each in ("moengage-cohort", "bash")}
    environment["PATH"] = ":".join([*folders, environment["PATH"]])
    done = run_guarded(["bash", "-c", text], cwd=tmp_path, env=environment, timeout=60)
    assert 0 == done.returncode, done.stderr
    lacking = text.replace('{"uid": "u-2"}', '{"uid": "u-1"}')
    assert lacking != text
    done = run_guarded(["bash", "-c", lacking], cwd=tmp_path, env=environment, timeout=60)
    assert 1 == done.returncode, done.stderr


def test_the_commands_of_segments(tmp_path: Path, emulated: Emulator) -> None:
    """segments.md's commands run in order; the cohort's members become a file segment through an S3
    store, and MoEngage's callback arrives."""
    page = DOCS / "segments.md"
    (readme,) = blocks(ROOT / "README.md", "json")
    target = json.loads(readme.text) | {"api_url": emulated.url}
    (tmp_path / "target.json").write_text(json.dumps(target))
    (filters,) = blocks(page, "json")
    (tmp_path / "berlin.json").write_text(filters.text)
    (tmp_path / "more.csv").write_text("u-101\nu-102\n")
    environment = plain_environment(tmp_path / "home") | {"NO_PROXY": "127.0.0.1"}
    folders = {str(Path(program(each)).parent) for each in ("moengage-cohort", "bash")}
    environment["PATH"] = ":".join([*folders, environment["PATH"]])

    def run(text: str) -> str:
        done = run_guarded(["bash", "-e", "-c", text], cwd=tmp_path, env=environment, timeout=60)
        assert 0 == done.returncode, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    stream = "public-newsletter"
    rows = [{"uid": f"u-{number}", "row_count": 100} for number in range(100)]
    messages = (record(stream, **row) for row in rows)
    (tmp_path / "rows").write_bytes(lines(schema(stream, ("uid", "row_count")), *messages))
    run("target-moengage-cohort --config target.json < rows")
    port = str(free_port())
    with object_store("acme-exports") as store:
        environment |= store.variables
        said = ""
        for block in shell(page):
            text = block.text.replace("https://hooks.example.com", f"http://127.0.0.1:{port}")
            said += run(text.replace("8080", port))
    assert "100 found, 100 processed, 100 matched" in said
    users = {each.name: each.users for each in emulated.apis.segments()}
    assert {"Newsletter readers", "Berlin 2026", "Newsletter by post"} == set(users)
    assert 102 == users["Newsletter by post"]


def test_the_emulator_in_a_python_test(desk_run) -> None:
    """emulator.md's test passes with a pipeline that retries, and fails without retries."""
    (block,) = blocks(DOCS / "emulator.md", "python")
    names: dict = {"run_my_pipeline": desk_run}
    exec(compile(block.text, block.place, "exec"), names)
    names["test_the_pipeline_recovers_from_errors"]()
    names["run_my_pipeline"] = lambda api_url: api_url
    with pytest.raises(AssertionError):
        names["test_the_pipeline_recovers_from_errors"]()


def test_monitoring(tmp_path: Path, emulated: Emulator, desk_run) -> None:
    """The commands of the page show the history of a run, and write a page of it."""
    desk_run(emulated.url, "your-workspace-id", "your-key")
    path = os.pathsep.join([str(Path(program("moengage-cohort")).parent), os.environ["PATH"]])
    shown = ""
    for block in shell(DOCS / "monitoring.md"):
        done = subprocess.run(
            ["bash", "-e", "-c", block.text],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, f"{block.place}: {done.stderr}"
        shown += done.stdout
    assert "vip" in shown
    assert (tmp_path / "history.html").stat().st_size > 1_000_000


def test_check_judges_what_the_loader_gets(newcomer: Newcomer) -> None:
    """A setting in the shared `config` reaches the utility, too, whichever it is; so does a
    misspelled one, which `check` refuses as a run does."""
    newcomer.follow_readme()
    path = newcomer.folder / "meltano.yml"
    project = yaml.safe_load(path.read_text())
    for (plugin,) in (project["plugins"]["loaders"], project["plugins"]["utilities"]):
        plugin["config"] |= {"uid_column": "user_id"}
    path.write_text(yaml.safe_dump(project, sort_keys=False))
    command = "meltano invoke moengage-cohort check --config=ENV --json 2> log"
    streams = json.loads(newcomer.run(command))["streams"]
    assert {"user_id"} == {each["columns"]["uid"] for each in streams}
    path.write_text(path.read_text().replace("uid_column: user_id", "uid_colum: user_id"))
    with pytest.raises(AssertionError, match="exit code 1"):
        newcomer.run(command)
    assert "unknown setting" in (newcomer.folder / "log").read_text()


@pytest.fixture
def desk_run(tmp_path: Path):
    """A pipeline: the target as a process, on two rows."""

    def run(api_url: str, workspace: str = "demo-workspace", key: str = "demo-key") -> None:
        config = {
            "workspace_id": workspace,
            "data_api_key": key,
            "data_center": "01",
            "partner": "acme",
            "api_url": api_url,
            "cohorts": {"users": {"cohort_id": "vip"}},
        }
        (tmp_path / "target.json").write_text(json.dumps(config))
        schema = {"type": "object", "properties": {"uid": {}}}
        messages = [
            {"type": "SCHEMA", "stream": "users", "schema": schema, "key_properties": []},
            *({"type": "RECORD", "stream": "users", "record": {"uid": u}} for u in ("u-1", "u-2")),
        ]
        subprocess.run(
            [program("target-moengage-cohort"), "--config", str(tmp_path / "target.json")],
            input="".join(json.dumps(message) + "\n" for message in messages),
            text=True,
            check=True,
            capture_output=True,
        )

    return run


@pytest.mark.parametrize("example", ["postgres", "mysql", "snowflake", "bigquery"])
def test_meltano_takes_the_examples(tmp_path: Path, example: str) -> None:
    """`meltano config` accepts each example without installing anything or contacting the Hub, and
    passes the cohorts and the secrets of the environment to the target."""
    shutil.copy(EXAMPLES / example / "meltano.yml", tmp_path)
    environment = plain_environment(tmp_path / "home") | {
        "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
        "MELTANO_HUB_URL": "http://127.0.0.1:9",  # no server listens there
        "TARGET_MOENGAGE_COHORT_DRY_RUN": "true",
    }

    def told(*arguments: str) -> Any:
        command = [program("meltano"), *arguments]
        done = run_guarded(command, cwd=tmp_path, env=environment, timeout=60)
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)

    config = told("config", "print", "target-moengage-cohort")
    assert config["dry_run"] is True
    assert all("cohort_id" in mapping for mapping in config["cohorts"].values())
    cohorts = config["cohorts"].items()
    mirrors = {stream for stream, mapping in cohorts if mapping.get("sync_mode") == "mirror"}
    jobs = {"sync-cohorts", "sync-and-confirm"} if mirrors else {"sync-cohorts"}
    assert jobs == {job["job_name"] for job in told("job", "list", "--format=json")["jobs"]}
    project = yaml.safe_load((tmp_path / "meltano.yml").read_text())
    (utility,) = project["plugins"]["utilities"]
    confirm = utility["commands"].get("confirm", {"args": ""})
    assert mirrors == {arg for arg in confirm["args"].split()[1:] if not arg.startswith("-")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_is_at_least_bash(page: Path) -> None:
    """Every shell block is valid bash."""
    for block in blocks(page, "sh"):
        done = subprocess.run(
            ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, f"{block.place}: {done.stderr}"


def test_every_page_with_commands_is_run() -> None:
    """Every page with shell blocks to run is run by a test above."""
    run = {"README.md", "docs/completeness.md", "docs/operations.md", "docs/emulator.md"}
    run |= {"docs/troubleshooting.md", "docs/segments.md", "docs/monitoring.md"}
    assert run == {name(page) for page in PAGES if shell(page)}
