"""What `moengage-cohort check` looks at."""
