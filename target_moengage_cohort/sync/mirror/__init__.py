"""Streams that are a whole cohort: mirror, one_time."""
