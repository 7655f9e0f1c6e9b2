"""Files of BATCH messages in a storage: a real S3 server on loopback, or another directory."""

import logging
import socket
import typing as t
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.settings.declared import BatchStorage
from target_moengage_cohort.singer.batches.storage import local_file, shown
from tests.support.batches import MAIN_KINDS, Kind, batch
from tests.support.singer import config as settings_of
from tests.support.singer import finish, lines, record, run, schema, start, state

BUCKET = "acme-batches"
SECRET = "PLANTED"
USERS = [{"uid": uid} for uid in "abc"]

every_kind = pytest.mark.parametrize("kind", MAIN_KINDS.values(), ids=MAIN_KINDS)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without credentials: only the settings have them."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def params(endpoint: str) -> dict[str, t.Any]:
    retries = {"retries": {"max_attempts": 0}}
    return {
        "key": "user",
        "secret": SECRET,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": "eu-west-1"},
        "config_kwargs": retries,
    }


@pytest.fixture(scope="module")
def files(endpoint: str) -> Iterator[s3fs.S3FileSystem]:
    """A client of the store, which is slow to create."""
    made = s3fs.S3FileSystem(**params(endpoint), skip_instance_cache=True, use_listings_cache=False)
    yield made
    made.close_session(made.loop, made.s3)  # the server's end waits for open connections


@pytest.fixture
def bucket(files: s3fs.S3FileSystem) -> Iterator[s3fs.S3FileSystem]:
    """An empty bucket."""
    files.mkdir(BUCKET)
    yield files
    files.rm(BUCKET, recursive=True)


def storage(root: str, **more: t.Any) -> dict[str, t.Any]:
    return {"batch_config": {"storage": {"root": root, **more}}}


def upload(bucket: s3fs.S3FileSystem, kind: Kind, folder: Path, key: str) -> str:
    """Put a file of users into the bucket, and return its URL."""
    path = folder / "made"
    kind.write(path, USERS)
    bucket.put_file(str(path), f"{BUCKET}/{key}")
    return f"s3://{BUCKET}/{key}"


def uids(emulator) -> set[str | None]:
    return {member.uid for member in emulator.members("users")}


@every_kind
def test_files_on_s3(emulator, endpoint, bucket, tmp_path, kind):
    """With the keys and the endpoint of an S3 store in the settings, its files are read and not
    removed."""
    url = upload(bucket, kind, tmp_path, f"dir/users-1.{kind.suffix}")
    options = storage(f"s3://{BUCKET}/dir", params=params(endpoint))
    seen = run(emulator, lines(schema(), batch(kind, url), state({"a": 1})), **options)
    assert seen.error is None
    assert (set("abc"), [{"a": 1}]) == (uids(emulator), seen.states)
    assert bucket.exists(url)


def test_a_process_reads_files_on_s3(emulator, endpoint, bucket, tmp_path):
    """The target as a process also reads from S3, with settings from a file."""
    kind = MAIN_KINDS["parquet"]
    url = upload(bucket, kind, tmp_path, f"dir/users-1.{kind.suffix}")
    options = settings_of(emulator, **storage(f"s3://{BUCKET}/dir", params=params(endpoint)))
    ended = finish(
        start(tmp_path / "home", options), lines(schema(), batch(kind, url), state({"a": 1}))
    )
    assert (0, [{"a": 1}]) == (ended.code, ended.states), ended.stderr
    assert set("abc") == uids(emulator)


@every_kind
@pytest.mark.parametrize("trouble", ["missing file", "missing bucket", "no server"])
def test_a_store_that_fails_is_an_incomplete_input(
    emulator, endpoint, bucket, tmp_path, caplog, kind, trouble
):
    """A missing file or an unreachable store fails the run before STATE; no members are removed,
    and no credentials are shown."""
    options = {"sync_mode": "mirror", "ledger_uri": str(tmp_path / "ledger")}
    options["max_removal_percent"] = 100
    assert run(emulator, lines(schema(), record(uid="kept")), **options).error is None
    good = upload(bucket, kind, tmp_path, f"dir/users-1.{kind.suffix}")
    name = f"users-{2 if trouble == 'missing file' else 1}.{kind.suffix}"
    root = f"s3://{BUCKET}/dir" if trouble != "missing bucket" else "s3://no-such-bucket"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    where = endpoint if trouble != "no server" else f"http://127.0.0.1:{port}"
    url = good.replace(f"users-1.{kind.suffix}", name)
    with caplog.at_level(logging.DEBUG, logger="target_moengage_cohort"):
        data = lines(schema(), batch(kind, url), state({"a": 1}))
        seen = run(emulator, data, **options, **storage(root, params=params(where)))
    assert isinstance(seen.error, InputError)
    assert "batch_file_not_fetched" == seen.error.code
    assert name in str(seen.error)
    assert ([], {"kept"}) == (seen.states, uids(emulator))
    assert SECRET not in str(seen.error) + caplog.text + repr(msgspec.json.encode(seen.report))


@every_kind
@pytest.mark.parametrize("as_url", [False, True], ids=["path", "url"])
@pytest.mark.parametrize("named", ["file:///no/such/folder/{}", "/no/such/folder/{}", "s3://b/{}"])
def test_a_root_alone_finds_files_by_their_names(emulator, tmp_path, kind, as_url, named):
    """With storage.root a file is looked up there by its name, whether the message names a
    directory of the tap's machine or a store."""
    root = tmp_path / "shared ü"
    root.mkdir()
    name = f"users 1.{kind.suffix}"
    kind.write(root / name, USERS)
    options = storage(f"file://{root}" if as_url else str(root))
    seen = run(emulator, lines(schema(), batch(kind, named.format(name))), **options)
    assert seen.error is None
    assert set("abc") == uids(emulator)


@every_kind
def test_a_root_does_not_give_what_is_outside_it(emulator, tmp_path, kind):
    """With storage.root no other file is opened, even if the manifest names an existing one."""
    root = tmp_path / "empty"
    root.mkdir()
    path = tmp_path / f"users.{kind.suffix}"
    kind.write(path, USERS)
    for named in (path.as_uri(), f"{root}/../users.{kind.suffix}"):
        seen = run(emulator, lines(schema(), batch(kind, named)), **storage(str(root)))
        assert isinstance(seen.error, InputError)
        assert "batch_file_missing" == seen.error.code
    assert set() == uids(emulator)


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("https://host/dir/a.json", "https://u:S3CRET@host/dir/a.json?sig=S3CRET#S3CRET"),
        ("s3://bucket/a.json", "s3://KEY:S3CRET@bucket/a.json"),
        ("a.json", "simplecache::s3://KEY:S3CRET@bucket/a.json"),
        ("a.json", "my_store://KEY:S3CRET@bucket/a.json?x"),
        ("file:///dir/a.json", "file:///dir/a.json"),
        ("/dir/a.json", "/dir/a.json"),
        ("not a url ", "not a url ?sig=S3CRET"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(expected, url):
    """A message has the address of a file without credentials, query and fragment."""
    assert expected == shown(url)


UNFETCHED = {
    "/no/a.json": (
        "batch_file_missing",
        (
            "the batch file /no/a.json does not exist, so the input is incomplete; run the tap "
            "again, or set batch_config.storage.root to the directory of its files"
        ),
    ),
    "http://[/a.json": (
        "invalid_batch_url",
        (
            "invalid URL for batch file a.json; set the storage in the tap's batch_config, or "
            "try a newer version of the tap"
        ),
    ),
    "nope://host/a.json": (
        "storage_package_missing",
        (
            "the batch file nope://host/a.json is in a storage that needs another Python "
            "package; install fsspec's package for it in the target's environment (s3fs for "
            "s3://, gcsfs for gs://, adlfs for abfs://)"
        ),
    ),
    "local:///no/a.json": (
        "batch_file_not_fetched",
        (
            "the batch file local:///no/a.json could not be fetched (FileNotFoundError), so the "
            "input is incomplete; check that it exists and that the credentials are right "
            "(batch_config.storage.params, or the environment)"
        ),
    ),
}


@pytest.mark.parametrize("url", UNFETCHED)
def test_a_file_that_cannot_be_fetched_is_an_error(tmp_path, url):
    """Each reason for which a file cannot be fetched has a code and a message."""
    root = url.rpartition("/")[0]
    place = BatchStorage(root=root) if "://" in url and "[" not in url else None
    with pytest.raises(InputError) as raised:
        local_file(url, place, tmp_path)
    assert UNFETCHED[url] == (raised.value.code, str(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/a.json",
        "HTTPS://host/a.json",
        "s3://another-bucket/a.json",
        "ftp://host/a.json",
        "simplecache::http://127.0.0.1:9/a.json",
        "zip://a.json::https://host/b.zip",
        "file:///tmp/x::http://host/a.json",
        "FILE:///etc/hostname",
        "local:///etc/hostname",
    ],
)
def test_a_url_that_no_setting_allows_is_not_fetched(tmp_path, url):
    """Without storage.root only files of this machine are read; the message names the setting."""
    with pytest.raises(InputError) as raised:
        local_file(url, None, tmp_path)
    expected = {"batch_storage_not_allowed", "batch_file_missing"}
    assert raised.value.code in expected
    assert url.startswith("file://") is (raised.value.code == "batch_file_missing")
    assert "batch_config.storage.root" in str(raised.value)


@pytest.mark.parametrize("name", ["a::zip", "memory::b.json", "x::http:"])
def test_a_name_chains_no_other_store(tmp_path, name):
    """A file's name cannot lead out of the configured store."""
    with pytest.raises(InputError) as raised:
        local_file(name, BatchStorage(root="memory://folder"), tmp_path)
    assert "batch_storage_not_allowed" == raised.value.code


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "{}"])
def test_a_local_file_may_be_named_in_several_ways(tmp_path, form):
    """A path, and a URL with or without localhost, name the same file, quoted or not."""
    path = tmp_path / "a b.json"
    path.write_bytes(b"")
    assert path == local_file(form.format(path), None, tmp_path)
    if form != "{}":
        assert path == local_file(form.format(path).replace(" ", "%20"), None, tmp_path)
