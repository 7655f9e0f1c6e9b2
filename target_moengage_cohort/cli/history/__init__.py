"""What `moengage-cohort history` writes."""
