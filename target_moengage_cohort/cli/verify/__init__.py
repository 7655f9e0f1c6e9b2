"""How `moengage-cohort verify` compares cohorts with MoEngage."""
