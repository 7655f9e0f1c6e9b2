"""The ledger of one cohort: its parts, and changes of the members as a whole."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb.database import remove_leftovers, rewrite_database
from target_moengage_cohort.ledger.duckdb.journal import ALL
from target_moengage_cohort.ledger.duckdb.lookups import Lookups
from target_moengage_cohort.ledger.duckdb.plans import Plans
from target_moengage_cohort.ledger.records import RunEntry

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Cohort, Member
    from target_moengage_cohort.ledger.interface import Difference

_NEWEST_RUNS = 100
_decode = msgspec.json.Decoder(RunEntry).decode


class DuckDBLedger(Lookups, Plans):
    """The `CohortLedger` in a DuckDB file; see there."""

    def load(self) -> None:
        """Read the file, and finish an interrupted `forget`."""
        super().load()
        if not self._read_only:
            with self._failing():
                remove_leftovers(self._file.path)
            if not self._is_rewritten:
                self._rewrite()

    def check(self, cohort: Cohort, stream: str) -> None:
        """Check that stream and name are the ones that the ledger has; record a description."""
        where = f"the ledger of cohort {cohort.cohort_id!r}"
        if self.entry.stream != stream:
            msg = (
                f"cohorts.{stream}: {where} belongs to stream {self.entry.stream!r}; to let "
                f"{stream!r} populate the cohort from now on, run: "
                "moengage-cohort ledger reassign COHORT STREAM --config …"
            )
            raise SettingsError("cohort_of_other_stream", msg)
        if self.entry.name != cohort.name:
            msg = (
                f"cohorts.{stream}.cohort_name: {where} has the name {self.entry.name!r}, not "
                f"{cohort.name!r}; to rename the cohort, run: "
                "moengage-cohort ledger rename COHORT NAME --config …"
            )
            raise SettingsError("cohort_renamed", msg)
        if self.entry.description != cohort.description and not self._read_only:
            with self._change("describe"):
                self._write_meta(description=cohort.description)
            self._list(description=cohort.description)

    def close(self) -> None:
        """Fold, write everything to the file and release it; after an error the next open folds."""
        with self._file.lock:
            try:
                if not (self._read_only or self._failure or self._is_closed):
                    self._fold(ALL)
            finally:
                self.abandon()

    def members(self) -> Iterator[list[Member]]:
        """Yield the members that are accepted or unconfirmed, in chunks."""
        with self.tables() as (_, s):
            return self._members(
                f"SELECT uid, anonymous_id FROM {s}.accepted UNION ALL SELECT uid, anonymous_id "
                f"FROM {s}.doubts AS d ANTI JOIN {s}.accepted AS a ON a.h = d.h"
            )

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Return the accepted or unconfirmed members that share an identifier with these."""
        matches: dict[Member, None] = {}
        uids = [member.uid for member in members if member.uid is not None]
        anonymous_ids = [m.anonymous_id for m in members if m.anonymous_id is not None]
        with self.tables() as (_, s):
            for table in ("accepted", "doubts"):
                same = "uid IN (SELECT unnest(?::VARCHAR[])) OR "
                same += "anonymous_id IN (SELECT unnest(?::VARCHAR[]))"
                select = f"SELECT uid, anonymous_id FROM {s}.{table} WHERE {same}"
                chunks = self._members(select, [uids, anonymous_ids])
                matches.update((member, None) for chunk in chunks for member in chunk)
        return list(matches)

    def drop_linked(self, difference: Difference) -> None:
        """Delete the members that a difference drops."""
        for chunk in difference.dropped():
            rows_sql, parameters = self._members_sql(chunk)
            linked = f"h IN (SELECT h FROM {rows_sql})"
            with self._using():
                self.fold()
                with self._change("drop linked"):
                    for table in ("accepted", "doubts"):
                        self._run(f"DELETE FROM {{s}}.{table} WHERE {linked}", parameters)
                self._checkpoint()
                self._settle()

    def clear_removed(self) -> None:
        """Delete the record of accepted removals."""
        with self._change("clear removed"):
            self._run("DELETE FROM {s}.removed")

    def seal(self) -> None:
        """Record that a one_time cohort is finished."""
        with self._change("seal"):
            self._write_meta(is_sealed=True)
        self.is_sealed = True

    def doubt_all(self) -> int:
        """Mark every accepted member as unconfirmed; return their number."""
        with self._using():
            self._fold(ALL)
            self._unsettle()
            with self._change("doubt all"):
                new = "FROM {s}.accepted AS a ANTI JOIN {s}.doubts AS d ON d.h = a.h"
                columns = f"a.h, a.uid, a.anonymous_id, '{Action.ADD.value}'"
                self._run(f"INSERT INTO {{s}}.doubts SELECT {columns} {new}")
                self._write_meta(is_sealed=False)
                self._outdate()
            self.is_sealed = False
            return self._value(f"SELECT count(*) FROM {self._tables}.accepted")

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Record members as accepted; return how many were not before."""
        with self._using() as cursor:
            cursor.execute(
                "CREATE OR REPLACE TEMP TABLE adopted "
                "(h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, position BIGINT)"
            )
        for chunk in chunks:
            rows_sql, parameters = self._members_sql(chunk)
            columns = "h, uid, anonymous_id, i + (SELECT count(*) FROM adopted)"
            with self._using() as cursor:
                cursor.execute(f"INSERT INTO adopted SELECT {columns} FROM {rows_sql}", parameters)
        with self._using() as cursor:
            self._fold(ALL)
            count = f"SELECT count(*) FROM {self._tables}.accepted"
            before = self._value(count)
            with self._change("adopt"):
                for table in ("accepted", "doubts", "removed"):
                    self._run(f"DELETE FROM {{s}}.{table} WHERE h IN (SELECT h FROM adopted)")
                last = "SELECT max(position) FROM adopted GROUP BY h"
                rows = f"SELECT h, uid, anonymous_id FROM adopted WHERE position IN ({last})"
                self._run(f"INSERT INTO {{s}}.accepted {rows}")
                self._outdate()
            cursor.execute("DROP TABLE adopted")
            self._settle()
            return self._value(count) - before

    def forget(self, members: Sequence[Member]) -> bool:
        """See `CohortLedger.forget`."""
        rows_sql, parameters = self._members_sql(members)
        with self._using() as cursor:
            self._fold(ALL)
            cursor.execute(f"CREATE TEMP TABLE forgotten AS FROM {rows_sql}", parameters)
            same = (
                "uid IN (SELECT uid FROM forgotten WHERE uid IS NOT NULL) OR anonymous_id IN "
                "(SELECT anonymous_id FROM forgotten WHERE anonymous_id IS NOT NULL)"
            )
            with self._change("forget"):
                erased = sum(
                    self._deleted(f"DELETE FROM {{s}}.{table} WHERE {same}")
                    for table in ("accepted", "doubts", "plan_members")
                )
                hash_sql = self._engine.hash_sql
                hashes = f"[{hash_sql('uid', 'NULL')}, {hash_sql('NULL', 'anonymous_id')}]"
                removed = "DELETE FROM {s}.removed WHERE h IN "
                erased += self._deleted(f"{removed}(SELECT unnest({hashes}) FROM forgotten)")
                self._write_meta(is_rewritten=False)
                self._outdate()
            cursor.execute("DROP TABLE forgotten")
            self._rewrite()
            self._settle()
        return erased > 0

    def _rewrite(self) -> None:
        """Rewrite the file without the bytes of deleted rows."""
        with self._using():
            rewrite_database(self._engine, self._file, self._step)
            self._engine.attach(self._file)
            self._is_rewritten = True

    def rename(self, name: str) -> None:
        """Give the cohort another name."""
        self._describe(name=name)

    def reassign(self, stream: str) -> None:
        """Let another stream populate the cohort."""
        self._describe(stream=stream)

    def _describe(self, **facts: str | None) -> None:
        with self._using():
            with self._change("describe"):
                self._write_meta(**facts)
                self._outdate()
            self._list(**facts)

    def note_run(self, run: RunEntry) -> None:
        """Record the outcome of a run; the newest runs are kept."""
        text = msgspec.json.encode(run).decode()
        with self._change("note run"):
            latest = f"SELECT coalesce(max(position), 0) FROM {self._tables}.runs"
            position = self._value(latest) + 1
            self._run("INSERT INTO {s}.runs VALUES (?, ?)", [position, text])
            self._run("DELETE FROM {s}.runs WHERE position <= ?", [position - _NEWEST_RUNS])

    def runs(self) -> list[RunEntry]:
        """Return the recorded runs, the newest first."""
        with self._using() as cursor:
            query = f"SELECT run FROM {self._tables}.runs ORDER BY position DESC"
            return [_decode(text) for (text,) in cursor.execute(query).fetchall()]
