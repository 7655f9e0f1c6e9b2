"""What people do to a ledger beside a sync, and what a mirror does when its plan is done."""

# ruff: noqa: S608 - the names in statements are our own; values are parameters
from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb.database import remove_leftovers, rewrite_database
from target_moengage_cohort.ledger.duckdb.journal import ALL, Journal
from target_moengage_cohort.ledger.records import RunEntry

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.duckdb.difference import Difference

_NEWEST_RUNS = 100
_decode = msgspec.json.Decoder(RunEntry).decode


class Upkeep(Journal):
    """The members as a whole."""

    def load(self) -> None:
        """Read the file, and finish what `forget` may have begun.

        Raises:
            SettingsError: It is not the file we want.
            LedgerError: DuckDB or the disk refuses it.
        """
        super().load()
        if not self._read_only:
            with self._failing():
                remove_leftovers(self._file.path)
            if not self._is_rewritten:
                self._rewrite()

    def members(self) -> Iterator[list[Member]]:
        """Yield who is accepted or in doubt, in chunks.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self.tables() as (_, s):
            return self._members(
                f"SELECT uid, anonymous_id FROM {s}.accepted UNION ALL SELECT uid, anonymous_id "
                f"FROM {s}.doubts AS d ANTI JOIN {s}.accepted AS a ON a.h = d.h"
            )

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Who is accepted or in doubt and has an identifier of one of these.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        found: dict[Member, None] = {}
        uids = [member.uid for member in members if member.uid is not None]
        anonymous_ids = [m.anonymous_id for m in members if m.anonymous_id is not None]
        with self.tables() as (_, s):
            for table in ("accepted", "doubts"):
                chunks = self._members(
                    f"SELECT uid, anonymous_id FROM {s}.{table} WHERE uid IN "
                    "(SELECT unnest(?::VARCHAR[])) OR anonymous_id IN "
                    "(SELECT unnest(?::VARCHAR[]))",
                    [uids, anonymous_ids],
                )
                found.update((member, None) for chunk in chunks for member in chunk)
        return list(found)

    def drop_linked(self, difference: Difference) -> None:
        """Forget those who are known by an anonymous id that now stands beside a uid.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        for chunk in difference.dropped():
            given, parameters = self._given(chunk)
            with self._using():
                self.fold()
                with self._change("drop linked"):
                    for table in ("accepted", "doubts"):
                        self._run(
                            f"DELETE FROM {{s}}.{table} WHERE h IN (SELECT h FROM {given})",
                            parameters,
                        )
                self._checkpoint()
                self._settle()

    def clear_removed(self) -> None:
        """Forget accepted removals, which a mirror does not need.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._change("clear removed"):
            self._run("DELETE FROM {s}.removed")

    def seal(self) -> None:
        """Note that a one_time cohort has had its good run.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._change("seal"):
            self._write_meta(is_sealed=True)
        self.is_sealed = True

    def doubt_all(self) -> int:
        """Doubt everything: who is accepted stays so, and is sent again, by a one_time, too.

        Returns:
            How many are accepted, and so in doubt.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._using():
            self._fold(ALL)
            self._unsettle()
            with self._change("doubt all"):
                self._run(
                    "INSERT INTO {s}.doubts SELECT a.h, a.uid, a.anonymous_id, "
                    f"'{Action.ADD.value}' FROM {{s}}.accepted AS a "
                    "ANTI JOIN {s}.doubts AS d ON d.h = a.h"
                )
                self._write_meta(is_sealed=False)
                self._outdate()
            self.is_sealed = False
            return self._value(f"SELECT count(*) FROM {self._tables}.accepted")

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Take members as accepted without sending them; nobody doubts them any more.

        Returns:
            How many were not accepted before.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._using() as cursor:
            cursor.execute(
                "CREATE OR REPLACE TEMP TABLE adopted "
                "(h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, position BIGINT)"
            )
        for chunk in chunks:
            given, parameters = self._given(chunk)
            columns = "h, uid, anonymous_id, i + (SELECT count(*) FROM adopted)"
            with self._using() as cursor:
                cursor.execute(f"INSERT INTO adopted SELECT {columns} FROM {given}", parameters)
        with self._using() as cursor:
            self._fold(ALL)
            count = f"SELECT count(*) FROM {self._tables}.accepted"
            before = self._value(count)
            with self._change("adopt"):
                for table in ("accepted", "doubts", "removed"):
                    self._run(f"DELETE FROM {{s}}.{table} WHERE h IN (SELECT h FROM adopted)")
                last = "SELECT max(position) FROM adopted GROUP BY h"
                self._run(
                    "INSERT INTO {s}.accepted SELECT h, uid, anonymous_id FROM adopted "
                    f"WHERE position IN ({last})"
                )
                self._outdate()
            cursor.execute("DROP TABLE adopted")
            self._settle()
            return self._value(count) - before

    def forget(self, members: Sequence[Member]) -> bool:
        """Erase whoever has an identifier of one of these, from the file itself, too.

        Returns:
            Whether there was anything of them, be it in a plan or among those who were removed.

        Raises:
            LedgerError: DuckDB or the disk refuses it; the next open finishes what was begun.
        """
        given, parameters = self._given(members)
        with self._using() as cursor:
            self._fold(ALL)
            cursor.execute(f"CREATE TEMP TABLE forgotten AS FROM {given}", parameters)
            same = (
                "uid IN (SELECT uid FROM forgotten WHERE uid IS NOT NULL) OR anonymous_id IN "
                "(SELECT anonymous_id FROM forgotten WHERE anonymous_id IS NOT NULL)"
            )
            with self._change("forget"):
                erased = sum(
                    self._deleted(f"DELETE FROM {{s}}.{table} WHERE {same}")
                    for table in ("accepted", "doubts", "plan_members")
                )
                hashes = ", ".join(
                    self._engine.hash_sql(*columns)
                    for columns in (("uid", "NULL"), ("NULL", "anonymous_id"))
                )
                erased += self._deleted(
                    "DELETE FROM {s}.removed WHERE h IN "
                    f"(SELECT unnest([{hashes}]) FROM forgotten)"
                )
                self._write_meta(is_rewritten=False)
                self._outdate()
            cursor.execute("DROP TABLE forgotten")
            self._rewrite()
            self._settle()
        return erased > 0

    def _rewrite(self) -> None:
        """Leave nothing of deleted rows in the file, nor beside it."""
        with self._using():
            rewrite_database(self._engine, self._file, self._step)
            self._engine.attach(self._file)
            self._is_rewritten = True

    def rename(self, name: str) -> None:
        """Give the cohort another name.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self._describe(name=name)

    def reassign(self, stream: str) -> None:
        """Let another stream feed the cohort.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self._describe(stream=stream)

    def _describe(self, **facts: str | None) -> None:
        with self._using():
            with self._change("describe"):
                self._write_meta(**facts)
                self._outdate()
            self._list(**facts)

    def note_run(self, run: RunEntry) -> None:
        """Remember what a run did; the newest are kept.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        text = msgspec.json.encode(run).decode()
        with self._change("note run"):
            position = self._value(
                f"SELECT coalesce(max(position), 0) + 1 FROM {self._tables}.runs"
            )
            self._run("INSERT INTO {s}.runs VALUES (?, ?)", [position, text])
            self._run("DELETE FROM {s}.runs WHERE position <= ?", [position - _NEWEST_RUNS])

    def runs(self) -> list[RunEntry]:
        """The runs that it remembers, the newest first.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._using() as cursor:
            query = f"SELECT run FROM {self._tables}.runs ORDER BY position DESC"
            return [_decode(text) for (text,) in cursor.execute(query).fetchall()]
