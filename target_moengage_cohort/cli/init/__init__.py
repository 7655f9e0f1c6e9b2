"""How `moengage-cohort init` sets up a Meltano project."""
