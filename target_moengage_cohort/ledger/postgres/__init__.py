"""The engine that keeps control and members in PostgreSQL, and compares them in DuckDB."""
