"""From the first upload to S3 to the last blob of the source: phases, and the gates between them."""

from enum import StrEnum


class Phase(StrEnum):
    """How far the cut-over is; entered in this order."""

    PREPARE = "prepare"
    UPLOADS_SWITCHED = "uploads_switched"
    MIGRATE = "migrate"
    SWEEP_CLEAN = "sweep_clean"
    SOURCE_FROZEN = "source_frozen"
    SOAK = "soak"
    DECOMMISSIONED = "decommissioned"
