"""A small app whose users upload photos; it shows how `migration_pipeline.uploads` is used."""
