"""Ledgers in DuckDB files, one for each cohort."""
