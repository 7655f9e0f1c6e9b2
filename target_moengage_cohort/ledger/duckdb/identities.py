"""Members that share identifiers with others, which MoEngage may have merged or not."""

from __future__ import annotations

from collections import Counter

from target_moengage_cohort.ledger.duckdb.result_tables import Tables


class Identities(Tables):
    """The part of a comparison in which one member's identifier is another's, too."""

    def _present(self, columns: str) -> str:
        """Return SQL for the rows of members: keys, row number and the given columns."""
        return f"(SELECT {self._keys}, rid, {columns} FROM {self.staged} WHERE present)"

    def _latest(self, keys: str) -> str:
        """Make a table of the last row of each key, with a hash of its anonymous id."""
        rows = self._make(
            "rows",
            f"SELECT * FROM {self._present('hash(anonymous_id) AS pair')}"
            f" SEMI JOIN {keys} USING ({self._keys})",
        )
        return self._group("latest", "max(rid) AS rid, arg_max(pair, rid) AS pair", f"FROM {rows}")

    def _keep_linked(self) -> dict[int, int]:
        """Move the removals whose anonymous id a row with a uid has now to a table of their own.

        Return the numbers of those that are not aliases yet.
        """
        anonymous = f"FROM {self.removals} WHERE uid IS NULL"
        if not (self._rows.has_pairs and self._count(anonymous)):
            return {}
        former = self._hash_sql("NULL::VARCHAR", "anonymous_id")
        keys = f"{self._prefix}former"
        matches = self._make(
            "matches",
            f"SELECT * FROM (SELECT {self._keys}, rid, {former} AS former"
            f" FROM {self._present('uid, anonymous_id')}"
            " WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL)"
            f" SEMI JOIN (SELECT {self._prefix}h AS former {anonymous})"
            f" USING ({keys})",
        )
        # Only the last row of a key has the anonymous id that counts.
        linked = self._make(
            "linked",
            f"SELECT {self._prefix}former AS h FROM {matches}"
            f" SEMI JOIN {self._latest(matches)} USING (rid)",
        )
        removals = f"FROM {self.removals}"
        self.linked = self._make(
            "kept",
            f"SELECT * {removals} SEMI JOIN {linked} USING ({self._keys})"
            " WHERE uid IS NULL AND NOT is_alias",
        )
        others = f"{removals} ANTI JOIN {linked} USING ({self._keys})"
        self.removals = self._make("others", others)
        return self._counts(f"FROM {self.linked}")

    def _find_resent(self) -> str:
        """Find the rows to send again after the removals, which may take their members along.

        MoEngage may have merged an anonymous member and a uid that it has seen together: the
        removal of the one is then that of the other. Return a table of those rows; "" for none.
        """
        shared = self._spare_shared()
        owners = self._owners(self.removals)
        sources = [f"SELECT {self._keys} FROM {each}" for each in (shared, owners) if each]
        if not sources:
            return ""
        keys = self._make("again", " UNION ".join(sources))
        rows = f"SELECT * FROM {self._present('NULL')} SEMI JOIN {keys} USING ({self._keys})"
        found = self._group("resent_rows", "max(rid) AS rid", rows)
        order = f"SELECT {self._cohort} AS cohort, h, rid FROM {found} ORDER BY cohort, rid"
        self.resent = self._make("resent", order)
        return found

    def _owners(self, removals: str) -> str:
        """Make a table of the accepted members of which removals have an alias; "" for none."""
        anonymous = f"FROM {removals} WHERE uid IS NULL"
        if not (self._has_aliases and self._count(anonymous)):
            return ""
        h = self._hash_sql("uid", "NULL::VARCHAR")
        former = self._make(
            "owners",
            f"SELECT DISTINCT {self._prefix}{h} AS h FROM {self._aliases}"
            f" SEMI JOIN (SELECT {self._keys} {anonymous}) USING ({self._keys})",
        )
        accepted = f"FROM {former} SEMI JOIN {self._accepted} USING ({self._keys})"
        return self._make("accepted_owners", f"SELECT * {accepted}")

    def _count_leaving(self, resent: str) -> tuple[dict[int, int], dict[int, int]]:
        """Count the approved removals, and the members that others leave without.

        The guard sees the latter: members that are removed, or stay but lose an alias. Approved
        removals get a table of their own, unless they are to be sent with the others.
        """
        keys, options = self._keys, self.options
        removals, approved = self.removals, {}
        if options.approved:
            approvals = self._make("approvals", f"SELECT DISTINCT {keys} FROM ({options.approved})")
            chosen = f"SELECT * FROM {self.removals} {{}} JOIN {approvals} USING ({keys})"
            removals = self._make("guarded", f"{chosen.format('ANTI')} ORDER BY cohort")
            if not options.defers:
                self.approved = self._make("approved", f"{chosen.format('SEMI')} ORDER BY cohort")
                self.removals, approved = removals, self._counts(f"FROM {self.approved}")
        leaving = Counter(self._counts(f"FROM {removals} WHERE NOT is_alias"))
        if owners := resent and self._owners(removals):
            leaving += Counter(self._counts(f"FROM {resent} SEMI JOIN {owners} USING ({keys})"))
        return approved, leaving

    def _spare_shared(self) -> str | None:
        """Clear the anonymous ids in removals that desired members have, which must stay.

        MoEngage tries the uid first, then the anonymous id. So a removal with a uid that it does
        not know would remove the member that has the anonymous id now. Return a table of the
        desired members without a uid that have one of them.
        """
        removals = self.removals
        pairs = f"FROM {removals} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        if not self._count(pairs):
            return None
        keys = f"{self._prefix}anonymous_id"
        staged = f"FROM {self.staged} SEMI JOIN (SELECT {keys} {pairs}) USING ({keys})"
        shared = self._make("shared", f"SELECT DISTINCT {keys} {staged} WHERE present")
        alone = self._make("alone", f"SELECT {self._keys} {staged} WHERE present AND uid IS NULL")
        same_cohort = "" if self._rows.is_one else " AND r.cohort = s.cohort"
        self._cursor.execute(
            f"UPDATE {removals} AS r SET anonymous_id = NULL FROM {shared} AS s"
            f" WHERE r.uid IS NOT NULL AND r.anonymous_id = s.anonymous_id{same_cohort}"
        )
        return alone
