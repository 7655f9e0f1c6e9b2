"""Stores that move to a server, from one, and between servers."""

import io
import itertools

import psycopg
import pytest

from target_moengage_cohort.core.errors import BusyError, SettingsError
from target_moengage_cohort.ledger import archive, moving
from tests.ledger.support import ADD, COHORT, STREAM, accept, members
from tests.ledger.support import settings as settings_of
from tests.support import moves
from tests.support.moves import opener, rows, without

_numbers = itertools.count(1)


@pytest.fixture
def places(server, tmp_path):
    """Return the settings of new places by their kind; a user and a password are in those of a
    server."""

    def make(kind):
        name = f"moved_{next(_numbers)}"
        if kind == "files":
            return settings_of(tmp_path / name)
        server.new_database(name)
        uri = f"postgresql://{server.user}:PLANTED@{server.host}:{server.port}/{name}"
        return settings_of(tmp_path, ledger_uri=uri)

    return make


def schemas(settings):
    with psycopg.connect(settings.ledger_uri) as connection:
        query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage%'"
        return [name for (name,) in connection.execute(query)]


def fill(settings):
    """Make a store whose last run has died, as long ago as its leases last."""
    moves.fill(settings)
    if settings.ledger_uri.startswith("postgresql:"):
        with psycopg.connect(settings.ledger_uri) as connection:
            for name in schemas(settings):
                connection.execute(f"UPDATE {name}.leases SET holder = ''")


def refusal(settings):
    """Return the code and the text with which a store refuses changes, or nothing."""
    with opener().open(settings) as store:
        try:
            store.note_action("test")
        except SettingsError as error:
            return error.code, str(error)
    return "", ""


def comparable(folder):
    found = without(rows(folder), "operator_actions")
    return {name: some for name, some in found.items() if not name.endswith(".marks")}


def test_a_store_moves_from_engine_to_engine(places, tmp_path):
    """A store that moves to a server, to another one and back to files has every row; each former
    place is refused, and names the next one without its password."""
    stops = [places(kind) for kind in ("files", "server", "server", "files")]
    fill(stops[0])
    before = comparable(tmp_path / stops[0].ledger_uri)
    for former, new in itertools.pairwise(stops):
        copied = moving.copy(opener(), former, new)
        code, text = refusal(former)
        assert "ledger_moved" == code
        assert copied.uri in text
        assert "PLANTED" not in text
        assert "" == refusal(new)[0]
    assert before == comparable(tmp_path / stops[-1].ledger_uri)


@pytest.mark.parametrize(("origin", "target"), [("server", "files"), ("files", "server")])
def test_an_archive_of_one_engine_is_imported_by_the_other(places, origin, target):
    """An archive is the same whichever engine has written it, and leaves one schema on a server."""
    former, new = places(origin), places(target)
    fill(former)
    output = io.BytesIO()
    with moving.held(opener(), former) as source:
        archive.write(output, source.facts, source.pieces())
    found = archive.Archive(output, new)
    with moving.filled(opener(), new, found.store, found.pieces) as filled:
        filled.put_in_place()
    with opener().open(new) as store:
        assert source.facts == store.facts()
        assert 13 == store.open(COHORT, STREAM).numbers().base
    assert target == "files" or 1 == len(schemas(new))


def test_a_server_that_has_a_ledger_is_left_alone(places):
    """Neither a copy nor an import replaces the ledger on a server, also if it was created while
    the copy was made; the former store is used as before."""
    former, new = places("files"), places("server")
    fill(former)

    def step(name):
        if name == "part: whole":
            with opener().open(new) as store:
                accept(store.open(COHORT, STREAM), ADD, members("mine"))

    for options in ({"step": step}, {}):
        with pytest.raises(SettingsError) as raised:
            moving.copy(opener(**options), former, new)
        assert "ledger_exists" == raised.value.code
    assert 1 == len(schemas(new))
    assert "" == refusal(former)[0]
    with opener().open(new) as store:
        assert 1 == store.open(COHORT, STREAM).numbers().base


def test_a_busy_stream_on_a_server_is_named(places):
    """While a run has a stream of a store on a server, it does not move."""
    former, new = places("server"), places("files")
    fill(former)
    with opener(run_id="at-work").open(former) as store:
        store.take(STREAM)
        with pytest.raises(BusyError) as raised:
            moving.copy(opener(), former, new)
        assert "at-work" in str(raised.value)


def test_a_copy_that_a_dead_process_has_left_is_dropped(places):
    """An unfinished copy of a process that has died is dropped by the next one."""
    former, new = places("files"), places("server")
    fill(former)
    with opener().open(new) as store, moving.held(opener(), former) as source:
        with store.part() as part, opener().open(part.settings) as unfinished:
            unfinished.create(next(source.pieces()).path, "import")
            (name,) = schemas(new)
            with psycopg.connect(new.ledger_uri) as connection:
                connection.execute("CREATE SCHEMA moengage_kept")
                connection.execute(f'ALTER SCHEMA "{name}" RENAME TO moengage_left')
        with psycopg.connect(new.ledger_uri) as connection:
            connection.execute(f'ALTER SCHEMA moengage_left RENAME TO "{name}"')
            connection.execute("DROP SCHEMA moengage_kept")
    assert [name] == schemas(new)
    moving.copy(opener(), former, new)
    assert [name.removesuffix("_part")] == schemas(new)
