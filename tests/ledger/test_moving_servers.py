"""Stores that move to a server, from one, and between servers."""

import contextlib
import io
import itertools

import msgspec
import psycopg
import pytest

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.ledger import archive, moving
from tests.ledger.support import ADD, COHORT, STREAM, accept, members
from tests.ledger.support import settings as settings_of
from tests.support import moves
from tests.support.losses import Losses
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
    place is refused, and names the next one without its password but with its user."""
    stops = [places(kind) for kind in ("files", "server", "server", "files")]
    fill(stops[0])
    before = comparable(tmp_path / stops[0].ledger_uri)
    for former, new in itertools.pairwise(stops):
        copied = moving.copy(opener(), former, new)
        code, text = refusal(former)
        assert "ledger_moved" == code
        assert new.ledger_uri.replace(":PLANTED@", "@") == copied.uri
        assert copied.uri in text
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


def imported(data, new):
    """Make a copy from an archive; put it in place by its `put_in_place`."""
    found = archive.Archive(io.BytesIO(data), new)
    return moving.filled(opener(), new, found.store, found.pieces)


def test_two_imports_into_one_place_do_not_disturb_each_other(places):
    """Two processes import into one place at the same time: one puts its ledger in place, with all
    of its members, and the other one is refused."""
    former, new = places("files"), places("server")
    fill(former)
    output = io.BytesIO()
    with moving.held(opener(), former) as source:
        archive.write(output, source.facts, source.pieces())
    with imported(output.getvalue(), new) as first, imported(output.getvalue(), new) as second:
        first.put_in_place()
        with pytest.raises(SettingsError) as raised:
            second.put_in_place()
        assert "ledger_exists" == raised.value.code
    assert 1 == len(schemas(new))
    with opener().open(new) as store:
        assert 13 == store.open(COHORT, STREAM).numbers().base


def leave_part(former, new):
    """Leave an unfinished copy with a lease, as a process does that dies; return its schema."""
    with (
        moving.held(opener(), former) as source,
        opener().open(new) as store,
        store.part() as part,
        opener().open(part.settings) as unfinished,
    ):
        unfinished.create(next(source.pieces()).path, "import")
        unfinished.take(STREAM)
        (name,) = schemas(new)
        execute(new, f'ALTER SCHEMA "{name}" RENAME TO left_over')
    execute(new, f'ALTER SCHEMA left_over RENAME TO "{name}"')
    return name


def execute(settings, statement):
    with psycopg.connect(settings.ledger_uri) as connection:
        connection.execute(statement)


def test_a_copy_that_a_dead_process_has_left_is_dropped_when_it_is_old(places):
    """An unfinished copy of a process that has died is dropped by a later one, once it was made
    more than an hour ago and had no lease since then: until then, its process may be alive."""
    former, new = places("files"), places("server")
    fill(former)
    name = leave_part(former, new)

    def is_kept():
        with opener().open(new) as store, store.part():
            return name in schemas(new)

    assert is_kept()
    execute(new, f"""COMMENT ON SCHEMA "{name}" IS '1700000000 of long ago'""")
    assert is_kept()
    execute(new, f'UPDATE "{name}".leases SET renewed_at = renewed_at - 3500')
    assert is_kept()
    execute(new, f'UPDATE "{name}".leases SET renewed_at = renewed_at - 200')
    moving.copy(opener(), former, new)
    assert [name.partition("_part_")[0]] == schemas(new)


@pytest.fixture
def through(server):
    """Return a context with the settings of a place on a server behind a proxy that loses the
    connections that rename a schema."""

    @contextlib.contextmanager
    def make(new, **options):
        with Losses(server.port, b"RENAME TO", **options) as losses:
            uri = new.ledger_uri.replace(f":{server.port}/", f":{losses.port}/")
            yield msgspec.structs.replace(new, ledger_uri=uri)
        assert 1 == losses.count  # it is not repeated

    return make


def test_a_lost_answer_to_the_rename_is_found_out(places, through):
    """If the connection is lost after the copy was put in place, the copy succeeds: the former
    store is marked as moved, and the new one is used."""
    former, new = places("files"), places("server")
    fill(former)
    with through(new) as behind:
        moving.copy(opener(), former, behind)
    assert ["ledger_moved", ""] == [refusal(each)[0] for each in (former, new)]
    assert 1 == len(schemas(new))


def test_a_rename_that_is_lost_before_the_server_has_it_undoes_the_copy(places, through):
    """If the connection is lost before the copy is put in place, the former store is used as
    before, and nothing is left of the copy."""
    former, new = places("files"), places("server")
    fill(former)
    with through(new, before=True) as behind, pytest.raises(LedgerError) as raised:
        moving.copy(opener(), former, behind)
    assert "ledger_unreachable" == raised.value.code
    assert "" == refusal(former)[0]
    assert [] == schemas(new)


@pytest.mark.parametrize("before", [False, True])
def test_a_copy_that_may_be_in_its_place_keeps_the_mark(places, through, before):
    """If the server cannot be asked whether the copy is in place, the former store stays marked,
    and the error says so, and how it is used again."""
    former, new = places("files"), places("server")
    fill(former)
    with through(new, before=before, ends=True) as behind, pytest.raises(LedgerError) as raised:
        moving.copy(opener(), former, behind)
    assert "ledger_copy_unconfirmed" == raised.value.code
    for text in ("moengage-cohort status", former.ledger_uri, "moengage-cohort ledger reopen"):
        assert text in str(raised.value)
    assert "ledger_moved" == refusal(former)[0]
    assert before == (not any("_part_" not in name for name in schemas(new)))


def test_a_former_store_that_cannot_be_used_again_is_named(places, server):
    """If the copy is not in place, and the server of the former store is gone, so that the mark
    stays, the error of the copy says that."""
    former, new = places("server"), places("files")
    fill(former)
    with Losses(server.port, b"moved_to = NULL", before=True, ends=True) as losses:
        uri = former.ledger_uri.replace(f":{server.port}/", f":{losses.port}/")

        def step(name):
            if name == "part: whole":
                with opener().open(new) as store:
                    store.note_action("another ledger")

        behind = msgspec.structs.replace(former, ledger_uri=uri)
        with pytest.raises(LedgerError) as raised:
            moving.copy(opener(step=step), behind, new)
    assert "moengage-cohort ledger reopen" in str(raised.value)
    assert "PLANTED" not in str(raised.value)
    assert "ledger_moved" == refusal(former)[0]


def take_over(settings, holder="another"):
    """Take all leases of the other partner, as a run does after they have expired."""
    (schema,) = schemas(settings)
    execute(
        settings,
        f"UPDATE {schema}.leases SET holder = '{holder}', fence = fence + 1, counter = counter + 1"
        " WHERE partner = 'another'",
    )


def test_an_export_without_the_lease_of_another_partner_fails(places):
    """If a run of another partner takes a stream over before control is dumped, or while the
    members are, the export fails."""
    former = places("server")
    fill(former)

    def step(name):
        if name == "dump: before commit":
            take_over(former)

    with pytest.raises(LedgerError) as raised, moving.held(opener(step=step), former):
        pass
    assert "lease_lost" == raised.value.code
    take_over(former, holder="")
    with moving.held(opener(), former) as source:
        pieces = source.pieces()
        next(pieces)
        take_over(former)
        with pytest.raises(LedgerError) as raised:
            list(pieces)
        assert "lease_lost" == raised.value.code


def test_a_copy_without_the_lease_of_another_partner_is_undone(places):
    """If a run of another partner takes a stream over after its members were copied, the copy is
    not put in place, and the former store is used as before."""
    former, new = places("server"), places("files")
    fill(former)

    def move():
        with (
            moving.held(opener(), former) as source,
            moving.filled(opener(), new, source.facts, lambda _: source.pieces(), "copy") as copied,
        ):
            take_over(former)
            source.move(copied)

    with pytest.raises(LedgerError) as raised:
        move()
    assert "lease_lost" == raised.value.code
    assert "" == refusal(former)[0]
    with opener().open(new) as store:
        assert not store.entries()
