"""Control: cohorts, unconfirmed requests, plans and runs, in SQL that any server takes."""
