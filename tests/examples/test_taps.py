"""The configurations of docs/examples with the real taps (`make test-long`).

No account is needed: discovery goes as far as the log-in, at an address on loopback.
"""

from __future__ import annotations

import http.server
import json
import threading
import typing as t

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from target_moengage_cohort.emulator import Emulator
from tests.examples.conftest import EXAMPLES, needed
from tests.support import servers
from tests.support.documents import blocks
from tests.support.mariadb import MariaDB
from tests.support.processes import run_guarded
from tests.support.project import destination, plain_environment, program

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 120
USERS = """
create table users (user_id int primary key, lifetime_value int, subscribed boolean,
                    updated_at datetime);
insert into users select seq, seq * 10, seq % 2, '2026-01-01' + interval seq second
from seq_1_to_200
"""


def extractor(example: str) -> dict[str, t.Any]:
    project = yaml.safe_load((EXAMPLES / example / "meltano.yml").read_text())
    return project["plugins"]["extractors"][0]


def test_snowflake_knows_the_settings(tmp_path):
    """The `--about` of tap-snowflake lists every setting that the example declares."""
    done = run(tmp_path, "tap-snowflake", "--about", "--format=json")
    known = json.loads(done.stdout)["settings"]["properties"]
    plugin = extractor("snowflake")
    names = {setting["name"] for setting in plugin["settings"]} | set(plugin["config"])
    assert names <= set(known)


def test_snowflake_discovers_up_to_the_connection(tmp_path):
    """Discovery with the example's configuration ends at the connection to Snowflake."""
    config = extractor("snowflake")["config"]
    config |= {"account": "acme", "user": "reader", "password": "planted", "database": "analytics"}
    (tmp_path / "tap.json").write_text(json.dumps(config))
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:9"}  # no server listens there
    done = run(tmp_path, "tap-snowflake", "--config=tap.json", "--discover", **proxy)
    assert 1 == done.returncode
    assert "Could not connect to Snowflake backend" in done.stderr
    assert "planted" not in done.stderr


def test_bigquery_discovers_up_to_the_log_in(tmp_path, google):
    """Discovery with the example's configuration logs in with the key of its variable."""
    plugin = extractor("bigquery")
    (tmp_path / "tap.json").write_text(json.dumps(plugin["config"]))
    (variable,) = [setting["env"] for setting in plugin["settings"] if "env" in setting]
    (tmp_path / "key.json").write_text(json.dumps(service_account(google)))
    key = {variable: str(tmp_path / "key.json")}
    done = run(tmp_path, "tap-bigquery", "--config=tap.json", "--discover", **key)
    assert 1 == done.returncode
    assert "planted_refusal" in done.stderr


def test_mysql(tmp_path):
    """The example for MySQL syncs both cohorts from a real database, with the real Meltano; members
    who leave are removed by the next run."""
    tap = needed("tap-mysql")
    tree = servers.mariadb_tree()
    if tree is None:
        pytest.skip(f"MariaDB is missing: {servers.HOW_TO_GET}")
    with MariaDB(tree) as mariadb, Emulator() as moengage:
        mariadb.execute("create database shop")
        mariadb.execute(USERS, "shop")
        page = EXAMPLES / "README.md"
        (views,) = [block for block in blocks(page, "sql") if "as char)" in block.text]
        mariadb.execute(views.text, "shop")
        variables = {f"TAP_MYSQL_{name.upper()}": str(getattr(mariadb, name)) for name in ACCESS}
        target = destination(moengage) | {"ledger_uri": str(tmp_path / "ledger")}
        variables |= {f"TARGET_MOENGAGE_COHORT_{k.upper()}": v for k, v in target.items()}
        install(tmp_path, tap)

        def sync() -> None:
            done = run_guarded(
                [program("meltano"), "run", "sync-cohorts"],
                cwd=tmp_path,
                env=plain_environment(tmp_path / "home") | variables,
                timeout=SECONDS,
            )
            assert 0 == done.returncode, done.stdout + done.stderr

        def same(cohort_id: str, view: str) -> bool:
            wanted = {uid for (uid,) in mariadb.execute(f"select uid from {view}", "shop")}
            return wanted == {member.uid for member in moengage.members(cohort_id)}

        sync()
        assert same("vip", "vip_users where is_member")
        assert same("newsletter", "newsletter")
        mariadb.execute("update users set subscribed = false where user_id < 10", "shop")
        mariadb.execute(
            "update users set lifetime_value = 0, updated_at = '2026-02-01' where user_id > 190",
            "shop",
        )
        sync()
        assert same("vip", "vip_users where is_member")
        assert same("newsletter", "newsletter")
        assert 95 == len(moengage.members("newsletter"))


ACCESS = ("host", "port", "user", "password")


def install(folder: Path, tap: Path) -> None:
    """Write the example for MySQL with the programs that are installed; nothing else differs."""
    project = yaml.safe_load((EXAMPLES / "mysql" / "meltano.yml").read_text())
    programs = {"tap-mysql": str(tap)}
    for plugins in project["plugins"].values():
        for plugin in plugins:
            del plugin["pip_url"]
            name = plugin["executable"]
            plugin["executable"] = programs.get(name) or program(name)
    (folder / "meltano.yml").write_text(yaml.safe_dump(project, sort_keys=False))


def run(folder: Path, tap: str, *arguments: str, **variables: str) -> t.Any:
    return run_guarded(
        [str(needed(tap)), *arguments],
        cwd=folder,
        env=plain_environment(folder / "home") | variables,
        timeout=SECONDS,
    )


@pytest.fixture
def google() -> Iterator[str]:
    """An address that refuses every log-in, as Google's does."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"error": "planted_refusal"}'
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()


def service_account(token_uri: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "reader@acme.example",
        "token_uri": token_uri,
    }
