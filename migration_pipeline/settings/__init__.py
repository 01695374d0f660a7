"""The one reader of configuration."""

from migration_pipeline.settings.reading import CONFIG_VARIABLE, load
from migration_pipeline.settings.sections import Retention, Settings, Target

__all__ = ["CONFIG_VARIABLE", "Retention", "Settings", "Target", "load"]
