"""Control: cohorts, requests in doubt, plans and runs, in statements that any SQL server takes."""
