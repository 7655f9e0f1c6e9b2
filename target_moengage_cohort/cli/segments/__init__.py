"""What `moengage-cohort segments` does."""
