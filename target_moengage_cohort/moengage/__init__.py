"""MoEngage over HTTP: requests, attempts, and the meaning of answers."""
