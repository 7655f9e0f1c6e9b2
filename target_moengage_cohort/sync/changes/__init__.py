"""Streams whose rows are changes: incremental, add, remove."""
