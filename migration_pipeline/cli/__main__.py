"""`python -m migration_pipeline.cli`, where the script is not on PATH."""

from migration_pipeline.cli.main import main

main(prog_name="migration-pipeline")
