"""Building a project: what is stale, in which order it runs, and what nothing needs."""
