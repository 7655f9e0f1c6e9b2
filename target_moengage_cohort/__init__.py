"""Singer target that keeps MoEngage cohorts equal to what a warehouse says they are."""
