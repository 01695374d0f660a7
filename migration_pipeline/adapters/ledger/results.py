"""What became of files, and what is proven of their copies: rows of the ledger, in both directions."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger import tallies
from migration_pipeline.core.model import CopyResult, Evidence, KnownFile, Outcome, SourceFile, WantedFile

_Cursor = psycopg.Cursor[tuple[Any, ...]]

VERIFIED = [outcome.value for outcome in Outcome if outcome.verified]
"""Outcomes of files whose copy is proven."""
UNSURE = [o.value for o in Outcome if not (o.verified or o in {Outcome.TARGET_CONFLICT, Outcome.TOO_LONG_KEY})]
"""Outcomes of files of which a run that was cut off, or lost its range, may have made a copy that nobody noted."""
MAY_BE_OURS = (
    "((f.ours AND f.etag IS NOT NULL) OR f.versions <> '{{}}' OR coalesce(f.outcome, 'gave_up') = ANY(%(unsure)s))"
)
"""Whether something of a file that nobody refers to any more may have to be erased."""
_MESSAGE_CHARACTERS = 500
KNOWN = (
    "CASE WHEN NOT erasing THEN outcome END, waived_at IS NOT NULL,"
    " etag IS NOT NULL AND coalesce(outcome NOT IN ('copied', 'already_there'), true),"
    " size_bytes, md5, etag, source_etag"
)
"""What `known_file` is made of."""
IS_AGED = "coalesce(proven_at < (SELECT started_at FROM {s}.ranges WHERE range_id = %(range)s), proven_at IS NULL)"
"""Whether nobody has looked at the copy since the range's newest run began."""
# A failure leaves the evidence of an older copy alone, unless that was looked at and is not as it was. An object is
# ours if we made it, or if it came to be after we first wanted the file and holds the same bytes: a copy of which the
# answer, or our process, was lost.
_RECORD = f"""
    WITH looked_up AS (SELECT e.*, f.noted_at, e.renewed IS TRUE AND f.outcome = ANY(%(verified)s) AS same
        FROM ended e JOIN {{s}}.files f USING (file_id)),
    judged AS (SELECT *, NOT coalesce(same, false) AND (outcome = 'copied'
        OR (outcome = 'already_there' AND made_at >= date_trunc('second', noted_at))) AS made FROM looked_up)
    UPDATE {{s}}.files f SET proven_at = CASE WHEN e.verified THEN now() END,
        outcome = CASE WHEN e.same THEN f.outcome ELSE e.outcome END, message = e.message,
        ended_at = CASE WHEN e.same THEN f.ended_at ELSE now() END,
        attempts = CASE WHEN e.same THEN f.attempts ELSE f.attempts + e.attempts END,
        tried_in = CASE WHEN e.same THEN f.tried_in ELSE %(range)s END,
        size_bytes = CASE WHEN e.verified THEN e.size_bytes ELSE f.size_bytes END,
        md5 = CASE WHEN e.verified THEN e.md5 ELSE f.md5 END,
        etag = CASE WHEN e.verified THEN e.etag WHEN e.renewed IS NULL THEN f.etag END,
        source_etag = CASE WHEN e.verified THEN e.source_etag ELSE f.source_etag END,
        replaces = CASE WHEN NOT e.verified THEN f.replaces END, retry_at = NULL,
        ours = CASE WHEN e.renewed IS FALSE THEN coalesce(e.made, false) ELSE f.ours OR coalesce(e.made, false) END,
        versions = CASE WHEN e.made AND e.version IS NOT NULL AND e.version <> ALL(f.versions)
            THEN f.versions || e.version ELSE f.versions END
    FROM judged e
    WHERE f.file_id = e.file_id AND (f.outcome IS NULL OR f.outcome <> ALL(%(verified)s)
        OR (e.renewed IS NOT NULL AND {IS_AGED}))
"""  # noqa: S608 - of a constant
AGED = f"""
    SELECT container, blob, attempts, replaces, md5, size_bytes, etag, source_etag,
        file_id IN (SELECT file_id FROM {{s}}.accepted) FROM {{s}}.files
    WHERE file_id IN (SELECT file_id FROM wanted_now) AND outcome = ANY(%(verified)s) AND NOT erasing AND {IS_AGED}
"""  # noqa: S608 - of a constant
"""Of what the profiles need now, copies that nobody has looked at since the run began; rows of `wanted_file`."""


def record(cursor: _Cursor, schema: sql.Identifier, range_id: int, results: Sequence[CopyResult]) -> tuple[int, int]:
    """Keep outcomes and evidence, within a transaction.

    Returns:
        How many files ended verified now, and how many became dead letters.
    """
    cursor.execute(
        "CREATE TEMP TABLE ended (file_id uuid, outcome text, message text, attempts integer,"
        " size_bytes bigint, md5 bytea, etag text, source_etag text, version text, made_at timestamptz,"
        " verified boolean, renewed boolean, accepted boolean) ON COMMIT DROP"
    )
    with cursor.copy("COPY ended FROM STDIN") as copy:
        for item in results:
            copy.write_row((
                item.file.file_id, item.outcome.value, _storable(item.message), item.attempts, item.size,
                item.md5, item.etag, item.source_etag, item.version, item.made_at, item.outcome.verified,
                item.renewed, item.accepted and item.outcome.verified,
            ))  # fmt: skip
    file_ids = [item.file.file_id for item in results]
    tallies.take_out(cursor, schema, range_id, file_ids)
    # A known dead letter that fails again says nothing new of how it goes, nor does a copy that is as it was.
    cursor.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE e.verified AND e.renewed IS NOT TRUE),"
            " count(*) FILTER (WHERE NOT e.verified AND (f.outcome IS NULL OR e.renewed IS FALSE))"
            " FROM ended e JOIN {s}.files f USING (file_id)"
        ).format(s=schema)
    )
    ((verified, failed),) = cursor.fetchall()
    cursor.execute(sql.SQL(_RECORD).format(s=schema), {"range": range_id, "verified": VERIFIED})
    cursor.execute(
        sql.SQL(
            "UPDATE {s}.accepted a SET used_at = now(), md5 = e.md5 FROM ended e"
            " WHERE a.file_id = e.file_id AND e.accepted"
        ).format(s=schema)
    )
    tallies.put_in(cursor, schema, range_id, file_ids)
    return verified, failed


def known_file(  # noqa: PLR0913, PLR0917 - a row, column by column
    outcome: str | None,
    waived: bool,  # noqa: FBT001 - a row, column by column
    outdated: bool,  # noqa: FBT001 - as above
    size: int,
    md5: bytes | None,
    etag: str | None,
    source_etag: str | None,
    aged: bool = False,  # noqa: FBT001, FBT002 - as above
) -> KnownFile:
    """A row of the ledger's files."""
    evidence = Evidence(size, md5, etag, source_etag) if etag is not None else None
    return KnownFile(Outcome(outcome) if outcome else None, waived, outdated, evidence, aged)


def wanted_file(  # noqa: PLR0913, PLR0917 - a row, column by column
    container: str,
    blob: str,
    attempts: int,
    replaces: str | None,
    md5: bytes | None,
    size: int,
    etag: str | None,
    source_etag: str | None,
    accepted: bool,  # noqa: FBT001 - as above
) -> WantedFile:
    """A row of the ledger's files, to be copied or looked at."""
    proven = Evidence(size, md5, etag, source_etag) if md5 is not None and replaces is None else None
    return WantedFile(SourceFile(container, blob), attempts, replaces, proven, accepted)


def _storable(message: str) -> str:
    return message.encode(errors="replace").decode().replace("\0", "\\0")[:_MESSAGE_CHARACTERS]
