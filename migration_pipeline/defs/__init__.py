"""When: the thin Dagster layer over the core."""
