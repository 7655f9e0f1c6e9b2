"""Runs whose server has a disk that is really full."""

import shutil

import pytest

from tests.support import servers
from tests.support.look import held, members
from tests.support.mirror_host import MirrorHost, assert_converges, people, under_way
from tests.support.postgres import Postgres
from tools.soak.disk import Disk

FIRST, SECOND, THIRD = people(*range(4000)), people(*range(2000, 6000)), people(*range(1000, 7000))


@pytest.fixture
def disk():
    """Return a small disk with the folder `space`, which belongs to the server's account."""
    account = servers.account()
    folder = servers.private_folder(account, "disk-")
    try:
        with Disk(folder / "small") as small:
            if not small.is_small:
                pytest.skip("this user may not mount a file system, so no disk can be filled")
            space = small.folder / "space"
            space.mkdir(mode=0o700)
            if account is not None:
                shutil.chown(space, account)
            yield small
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def uri(disk):
    """Return the URI of a database that is on the small disk."""
    with Postgres() as server:
        with server.administered() as connection:
            connection.execute(f"create tablespace small location '{disk.folder / 'space'}'")
            connection.execute("create database on_small tablespace small")
        yield f"postgresql://{server.user}@{server.host}:{server.port}/on_small"


def assert_known(emulator, uri):
    """Check that the ledger knows of each member, and counts none as accepted that is not."""
    found, cohort = held(emulator, uri)["users"], members(emulator, "users")
    assert cohort <= found.base
    assert found.accepted - found.doubts.keys() <= cohort


@pytest.mark.parametrize("has_begun", [False, True], ids=["at the beginning", "during a request"])
def test_a_full_disk_stops_the_run_and_loses_nothing(emulator, disk, uri, tmp_path, has_begun):
    """A run whose server has no space left stops with an error that names the disk; the ledger
    has recorded all that was sent, and the next run with space converges."""
    host = MirrorHost(emulator, tmp_path, uri, payload=30_000)
    assert host.run(FIRST)[0] is None
    if has_begun:
        with under_way(emulator, host, SECOND) as ending, disk.filled(0):
            emulator.release()
            code, _ = ending.result()
    else:
        with disk.filled(0):
            code, requests = host.run(SECOND)
            assert 0 == requests
    assert "ledger_unusable" == code
    assert_known(emulator, uri)
    assert_converges(emulator, uri, host, THIRD)
