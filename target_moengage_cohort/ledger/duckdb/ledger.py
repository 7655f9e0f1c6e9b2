"""The ledger of one cohort, as the rest of the program sees it."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.duckdb.journal import ALL
from target_moengage_cohort.ledger.duckdb.lookups import Lookups
from target_moengage_cohort.ledger.duckdb.plans import Plans
from target_moengage_cohort.ledger.duckdb.upkeep import Upkeep

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Cohort


class Ledger(Lookups, Plans, Upkeep):
    """What MoEngage has accepted of one cohort; `Ledgers.open` gives it."""

    def check(self, cohort: Cohort, stream: str) -> None:
        """Check that the ledger is this stream's and the cohort's name the one it has.

        A new description is noted.

        Raises:
            SettingsError: It is not.
            LedgerError: The description cannot be noted.
        """
        where = f"the ledger of cohort {cohort.cohort_id!r}"
        if self.entry.stream != stream:
            msg = (
                f"cohorts.{stream}: {where} is fed by the stream {self.entry.stream!r}; if "
                f"{stream!r} is to feed it from now on, run: "
                "moengage-cohort ledger reassign COHORT STREAM --config …"
            )
            raise SettingsError(msg)
        if self.entry.name != cohort.name:
            msg = (
                f"cohorts.{stream}.cohort_name: {where} has the name {self.entry.name!r}, not "
                f"{cohort.name!r}; if it is to be renamed, run: "
                "moengage-cohort ledger rename COHORT NAME --config …"
            )
            raise SettingsError(msg)
        if self.entry.description != cohort.description and not self._read_only:
            with self._change("describe"):
                self._write_meta(description=cohort.description)
            self._list(description=cohort.description)

    def close(self) -> None:
        """Fold, write everything to the file, and let others have it.

        Raises:
            LedgerError: DuckDB or the disk refuses it; the next open folds.
        """
        with self._file.lock:
            try:
                if not (self._read_only or self._failure or self._is_closed):
                    self._fold(ALL)
            finally:
                self.abandon()
