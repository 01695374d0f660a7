"""The ledger's tables, as versioned steps that every start brings up to date."""

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger import groups, tallies
from migration_pipeline.adapters.postgres.connection import Connection
from migration_pipeline.core.errors import Fatal

_Cursor = psycopg.Cursor[tuple[Any, ...]]
Step = str | Callable[[_Cursor, sql.Identifier], None]


def _into_groups(cursor: _Cursor, schema: sql.Identifier) -> None:
    """Move `wanted` into tables of its own for each group of ranges, and count what was never counted."""
    cursor.execute(sql.SQL(_PARTED).format(s=schema))
    cursor.execute(sql.SQL("SELECT range_id FROM {s}.ranges").format(s=schema))
    groups.make_tables(cursor, schema, [range_id for (range_id,) in cursor.fetchall()])
    cursor.execute(sql.SQL("INSERT INTO {s}.wanted SELECT * FROM {s}.wanted_before").format(s=schema))
    cursor.execute(sql.SQL("DROP TABLE {s}.wanted_before").format(s=schema))
    cursor.execute(sql.SQL(_TRIED).format(s=schema))
    cursor.execute(sql.SQL(tallies.FILL).format(s=schema))


_TRIED = """
    UPDATE {s}.files f SET tried_in = coalesce((SELECT min(range_id) FROM {s}.wanted w WHERE w.file_id = f.file_id), -1)
    WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there')
"""
_PARTED = """
    ALTER TABLE {s}.wanted RENAME TO wanted_before;
    ALTER TABLE {s}.wanted_before DROP CONSTRAINT wanted_pkey;
    DROP INDEX {s}.wanted_file, {s}.wanted_dropped;
    CREATE TABLE {s}.wanted (
        range_id   integer NOT NULL REFERENCES {s}.ranges,
        profile_id text NOT NULL,
        file_id    uuid NOT NULL REFERENCES {s}.files,
        spelling   text,                              -- the reference as it was, without query string
        had_query  boolean NOT NULL DEFAULT false,
        dropped_at timestamptz,                       -- when no profile of the range held it any more
        PRIMARY KEY (range_id, profile_id, file_id)
    ) PARTITION BY RANGE (range_id);                  -- see groups.py
    CREATE INDEX wanted_file ON {s}.wanted (file_id);
    CREATE INDEX wanted_dropped ON {s}.wanted (dropped_at) WHERE dropped_at IS NOT NULL;
    CREATE TABLE {s}.tallies (                        -- files by outcome and size; see tallies.py
        range_id integer NOT NULL,                    -- in which they changed; of nobody: -1
        outcome  text NOT NULL,                       -- '': not tried yet
        power    smallint NOT NULL,                   -- files have at least 2^power bytes, and less than twice that
        files    bigint NOT NULL,
        bytes    bigint NOT NULL,
        attempts bigint NOT NULL,
        PRIMARY KEY (range_id, outcome, power)
    );
    ALTER TABLE {s}.files
        ADD tried_in integer;                         -- range whose run last did: where to look first for who needs it
    CREATE INDEX files_letters ON {s}.files (file_id)
        WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there');
    ALTER TABLE {s}.ranges
        ADD archive     text,                         -- folder and digest of what its dropped rows were exported to
        ADD archived_at timestamptz;
    ALTER TABLE {s}.removed
        ADD ours     boolean,                         -- of a file whose row was dropped: the copy is ours; else null
        ADD versions text[];                          -- of such a file: those of the copy that we made
"""

STEPS: tuple[Step, ...] = (
    # 1: ranges, files, and which range's profiles need which file.
    """
    CREATE TABLE {s}.ranges (
        range_id    integer PRIMARY KEY,              -- the range's ordinal
        key         text NOT NULL UNIQUE,             -- the Dagster partition
        after_id    text,                             -- exclusive; null for the first range
        last_id     text NOT NULL,                    -- inclusive
        numeric_ids boolean NOT NULL,
        profiles    integer NOT NULL,                 -- when it was planned
        planned_at  timestamptz NOT NULL DEFAULT now(),
        started_at  timestamptz,                      -- of the newest run
        ended_at    timestamptz,                      -- null while it runs, and after a crash
        copied      bigint NOT NULL DEFAULT 0,        -- files, over all runs
        bytes       bigint NOT NULL DEFAULT 0,        -- of these
        report      jsonb                             -- counters of the newest run that ended
    );
    CREATE TABLE {s}.files (
        file_id    uuid PRIMARY KEY,                  -- of container and blob, see SourceFile.file_id
        container  text NOT NULL,
        blob       text NOT NULL,
        outcome    text,                              -- null: not tried yet
        message    text NOT NULL DEFAULT '',
        attempts   integer NOT NULL DEFAULT 0,        -- over all runs
        size_bytes bigint NOT NULL DEFAULT 0,
        md5        bytea,                             -- of the bytes read; evidence
        etag       text,                              -- of the S3 object
        ended_at   timestamptz,
        waived_at  timestamptz,
        waived_by  text,
        waived_why text
    );
    CREATE TABLE {s}.wanted (
        range_id   integer NOT NULL REFERENCES {s}.ranges,
        profile_id text NOT NULL,
        file_id    uuid NOT NULL REFERENCES {s}.files,
        PRIMARY KEY (range_id, profile_id, file_id)
    );
    CREATE INDEX wanted_file ON {s}.wanted (file_id);
    CREATE INDEX files_failed ON {s}.files (outcome)
        WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there');
    """,
    # 2: who holds a range, what is to be done to it again, and what rollback, sweep and erasure have to know.
    """
    ALTER TABLE {s}.ranges
        ADD epoch          bigint NOT NULL DEFAULT 0, -- raised each time that a run takes the range
        ADD requested_at   timestamptz,               -- something came late: a run is asked for
        ADD requested_why  text,
        ADD rolled_back_at timestamptz;               -- null again once it is migrated again
    ALTER TABLE {s}.files
        ADD noted_at    timestamptz NOT NULL DEFAULT now(), -- when a profile was first seen to need it
        ADD source_etag text,                         -- of the version of the blob that was copied
        ADD ours        boolean NOT NULL DEFAULT false, -- the S3 object was made by this migration
        ADD versions    text[] NOT NULL DEFAULT '{{}}', -- of it that we made, on a bucket with versioning
        ADD replaces    text,                         -- ETag of our copy that the source has newer bytes of
        ADD erasing     boolean NOT NULL DEFAULT false; -- its copy is being removed; nobody may rely on it
    UPDATE {s}.files SET ours = true WHERE outcome = 'copied';
    ALTER TABLE {s}.wanted
        ADD spelling   text,                          -- the reference as it was, without query string
        ADD had_query  boolean NOT NULL DEFAULT false,
        ADD dropped_at timestamptz;                   -- when no profile of the range held it any more
    CREATE INDEX wanted_dropped ON {s}.wanted (dropped_at) WHERE dropped_at IS NOT NULL;
    CREATE TABLE {s}.erased (
        file_id    uuid NOT NULL,
        container  text NOT NULL,
        blob       text NOT NULL,
        key        text NOT NULL,
        etag       text,
        md5        bytea,
        removed    integer NOT NULL,                  -- objects, or versions of one
        profiles   text[] NOT NULL,                   -- that once needed it
        erased_at  timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE {s}.state (
        name  text PRIMARY KEY,
        value jsonb NOT NULL                          -- how far a sweep is, for example
    );
    """,
    # 3: what operators say to runs at work, what they did, and how fast it went.
    """
    ALTER TABLE {s}.ranges ADD seen_at timestamptz;   -- a run at work says so every few seconds
    ALTER TABLE {s}.files ADD retry_at timestamptz;   -- an operator wants this file tried, and no other dead letter
    CREATE TABLE {s}.progress (
        at       timestamptz NOT NULL,                -- beginning of ten seconds
        range_id integer NOT NULL REFERENCES {s}.ranges,
        files    bigint NOT NULL,                     -- that ended verified
        failed   bigint NOT NULL,                     -- that became dead letters
        bytes    bigint NOT NULL,                     -- copied
        PRIMARY KEY (at, range_id)
    );
    CREATE TABLE {s}.acts (
        act_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at      timestamptz NOT NULL DEFAULT now(),
        who     text NOT NULL,
        what    text NOT NULL,                        -- pause, resume, limits, waive, retry, …
        why     text NOT NULL DEFAULT '',
        details jsonb NOT NULL DEFAULT '{{}}'
    );
    """,
    # 4: what the source holds, how far the cut-over is, and what was removed from the source.
    """
    ALTER TABLE {s}.ranges
        ADD audited_at timestamptz,                   -- when its newest audit began
        ADD findings   jsonb,                         -- of that: references by finding
        ADD spent      jsonb NOT NULL DEFAULT '{{}}'; -- asked of the stores, over all runs that ended
    ALTER TABLE {s}.ranges ADD done_at timestamptz;   -- when first nobody of it waited any more
    CREATE TABLE {s}.listings (
        listing_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        began_at   timestamptz NOT NULL,              -- of a report: when Azure began it
        ended_at   timestamptz,                       -- null while it is under way, and after a crash
        source     text NOT NULL,                     -- listing, or a report's files
        containers text[] NOT NULL,                   -- that it covers
        progress   jsonb NOT NULL DEFAULT '{{}}',     -- where to go on
        skipped    jsonb NOT NULL DEFAULT '{{}}',     -- rows that are no blob of now, by reason
        blobs      bigint NOT NULL DEFAULT 0,
        bytes      bigint NOT NULL DEFAULT 0
    );
    CREATE TABLE {s}.inventory (                      -- of each container, what the newest complete listing saw
        file_id    uuid NOT NULL,
        container  text NOT NULL,
        blob       text NOT NULL,
        size_bytes bigint NOT NULL,
        md5        bytea,
        etag       text,                              -- quoted, as in HTTP
        tier       text,                              -- Hot, Cool, Cold, Archive
        written_at timestamptz NOT NULL,              -- Last-Modified
        listing_id integer NOT NULL,                  -- that saw it
        PRIMARY KEY (file_id, listing_id)
    ) PARTITION BY LIST (listing_id);                 -- a listing under way fills a table of its own
    CREATE INDEX inventory_written ON {s}.inventory (written_at);
    CREATE TABLE {s}.counts (                         -- passes over all profiles and documents
        count_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        began_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz,                         -- null while it is under way, and after a crash
        settings text NOT NULL,                       -- digest of those that say what a reference is
        progress jsonb NOT NULL DEFAULT '{{}}',       -- where to go on, and the totals up to there
        numeric_ids boolean
    );
    CREATE TABLE {s}.referenced (                     -- the files that the newest complete count found
        file_id    uuid NOT NULL,
        container  text NOT NULL,
        blob       text NOT NULL,
        profiles   integer NOT NULL,                  -- that refer to it
        a_profile  text NOT NULL,                     -- one of them
        alive      boolean NOT NULL,                  -- one of them is not deleted
        to_move    boolean NOT NULL,                  -- one that is not deleted names the source
        too_long   boolean NOT NULL,                  -- the key is longer than S3 takes
        count_id   integer NOT NULL,
        PRIMARY KEY (file_id, count_id)
    ) PARTITION BY LIST (count_id);
    CREATE TABLE {s}.counted (                        -- files to move of each profile, in id order
        count_id integer NOT NULL,
        ordinal  integer NOT NULL,                    -- of the batch
        ids      text[] NOT NULL,
        files    integer[] NOT NULL,
        PRIMARY KEY (count_id, ordinal)
    );
    CREATE TABLE {s}.orphans (                        -- blobs nobody refers to that were copied, or were to be
        file_id     uuid PRIMARY KEY,
        container   text NOT NULL,
        blob        text NOT NULL,
        key         text NOT NULL,
        outcome     text NOT NULL,
        message     text NOT NULL DEFAULT '',
        size_bytes  bigint NOT NULL DEFAULT 0,
        md5         bytea,
        etag        text,
        source_etag text,
        attempts    integer NOT NULL,                 -- over all runs
        ended_at    timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE {s}.phases (
        phase_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        phase    text NOT NULL,                       -- that was entered
        at       timestamptz NOT NULL DEFAULT now(),
        who      text NOT NULL,
        why      text NOT NULL DEFAULT '',
        details  jsonb NOT NULL DEFAULT '{{}}'
    );
    CREATE TABLE {s}.removed (
        removed_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        file_id     uuid NOT NULL,
        range_id    integer NOT NULL REFERENCES {s}.ranges, -- that was held for it
        container   text NOT NULL,
        blob        text NOT NULL,
        key         text NOT NULL,                    -- of the copy that was proven in the same step
        size_bytes  bigint NOT NULL,
        md5         bytea NOT NULL,
        source_etag text NOT NULL,                    -- of the version that was removed
        target_etag text NOT NULL,
        who         text NOT NULL,
        how         text NOT NULL,                    -- delete, archive
        begun_at    timestamptz NOT NULL DEFAULT now(),
        ended_at    timestamptz                       -- null: cut off, perhaps before the source was asked
    );
    CREATE INDEX removed_file ON {s}.removed (file_id);
    CREATE UNIQUE INDEX removed_begun ON {s}.removed (file_id) WHERE ended_at IS NULL;
    """,
    # 5: as many ranges and files as there may be.
    _into_groups,
    # 6: references that were spelled in several ways, or with a query string.
    """
    ALTER TABLE {s}.wanted ADD places jsonb;          -- [[place, [spelling, …]], …]; null where `spelling` says it all
    """,
    # 7: evidence has an age.
    """
    ALTER TABLE {s}.files ADD proven_at timestamptz;  -- when its copy was last seen to be as it was proven
    ALTER TABLE {s}.removed ADD profiles text[];      -- of a file whose row was dropped: who once needed it
    CREATE INDEX removed_archived ON {s}.removed (range_id) WHERE ours;
    """,
    # 8: wrong Content-MD5 that operators accept; names of dead letters that were URLs with an escaped SAS.
    r"""
    CREATE TABLE {s}.accepted (
        file_id     uuid PRIMARY KEY,
        container   text NOT NULL,
        blob        text NOT NULL,
        accepted_at timestamptz NOT NULL DEFAULT now(),
        accepted_by text NOT NULL,
        why         text NOT NULL,
        md5         bytea,                            -- of the bytes that were copied
        used_at     timestamptz                       -- null: not copied yet, or the stored Content-MD5 was right
    );
    UPDATE {s}.wanted w SET spelling = regexp_replace(w.spelling, '(\?|%(25)*3f).*', '', 'i'), places = NULL
    FROM {s}.files f WHERE f.file_id = w.file_id AND f.outcome IS NOT NULL
        AND f.outcome NOT IN ('copied', 'already_there')
        AND f.blob ~* '(\?|%(25)*3f)(.*(&|;|%(25)*26))?sig(=|%(25)*3d)'
        AND f.blob ~* '(\?|&|;|%(25)*(3f|26))s[veipr](=|%(25)*3d)';
    UPDATE {s}.files SET blob = regexp_replace(blob, '(\?|%(25)*3f).*', '?(signature removed)', 'i')
    WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there')
        AND blob ~* '(\?|%(25)*3f)(.*(&|;|%(25)*26))?sig(=|%(25)*3d)'
        AND blob ~* '(\?|&|;|%(25)*(3f|26))s[veipr](=|%(25)*3d)';
    """,
)
"""Each step once released is never edited; the next change is a further step."""


def bring_up_to_date(connection: Connection, schema: str) -> None:
    """Create the schema, or run the steps that it lacks. Two processes at once do it one after the other.

    Raises:
        Fatal: a newer release of this project wrote the schema.
    """
    name = sql.Identifier(schema)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"migration_pipeline schema {schema}"])
        done = _version(cursor, schema)
        if done > len(STEPS):
            raise Fatal(
                f"the ledger is at version {done}, this release knows {len(STEPS)}.",
                setting="ledger.schema",
                remedy="Use the release that wrote it, or a newer one.",
            )
        if done == len(STEPS):
            return
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {}.schema_versions"
                " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            ).format(name)
        )
        for version, step in enumerate(STEPS[done:], start=done + 1):
            if isinstance(step, str):
                cursor.execute(sql.SQL(step).format(s=name))
            else:
                step(cursor, name)
            cursor.execute(sql.SQL("INSERT INTO {}.schema_versions VALUES (%s)").format(name), [version])


def is_there(connection: Connection, schema: str) -> bool:
    """Whether some release of this project made the schema."""
    with connection.cursor() as cursor:
        return _version(cursor, schema) > 0


def _version(cursor: psycopg.Cursor[tuple[Any, ...]], schema: str) -> int:
    cursor.execute("SELECT to_regclass(%s)", [f'"{schema}".schema_versions'])
    ((there,),) = cursor.fetchall()
    if there is None:
        return 0
    cursor.execute(sql.SQL("SELECT coalesce(max(version), 0) FROM {}.schema_versions").format(sql.Identifier(schema)))
    ((version,),) = cursor.fetchall()
    return int(version)
