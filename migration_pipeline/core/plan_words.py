"""What a plan found that somebody has to decide, in sentences for an operator."""

from collections.abc import Iterator, Mapping
from datetime import UTC

from migration_pipeline.core.alert_words import count, counted
from migration_pipeline.core.calibration import Off
from migration_pipeline.core.queries import Query
from migration_pipeline.core.reading import ASKING
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.text import span
from migration_pipeline.core.urls import UrlKind


def to_decide(references: Mapping[str, int], query: Query, files: SampledFiles) -> Iterator[str]:
    """What is wrong, and what to set; nothing where all is well."""
    if references.get(UrlKind.EMBEDDED):
        yield (
            f"{counted(references[UrlKind.EMBEDDED], 'value', 'names', 'name')} the source inside something larger, or "
            "in a spelling that is not understood; the profiles concerned will wait. Where a column or field holds "
            "texts, say so, for example "
            'columns = ["photos", { name = "bio", embedded = true }]: then the URLs in it move. Put others right in '
            "the app."
        )
    if references.get(UrlKind.UNPARSABLE):
        yield (
            f"{counted(references[UrlKind.UNPARSABLE], 'URL', 'names', 'name')} the source or S3, and no file for "
            "sure; profiles with such a URL of the source will wait until the app has put them right."
        )
    if references.get(ASKING):
        asking = counted(references[ASKING], "reference", "has", "have")
        yield f"{asking} a query string or a fragment beside a SAS. {_QUERIES[query]}"
    if references.get(UrlKind.OTHER_CONTAINER):
        yield (
            f"{counted(references[UrlKind.OTHER_CONTAINER], 'URL', 'names', 'name')} a container that does not move. "
            "Name it under source.containers, if it is to move."
        )
    if files.named:
        places = ", ".join(sorted(files.named))
        yield (
            f"{files.named.total():,} of {count(files.names, 'value')} without a URL: a blob has that name ({places}). "
            "Such a value is no reference, and its file does not move. Give the column or field a base, what the app "
            'puts before them: { name = "photo", base = "https://acct.blob.core.windows.net/photos/" }.'
        )


def off_in_words(last: Off) -> str:
    """How far the estimate made before the first run was off, for what has run since."""
    more = last.files / last.files_expected - 1
    times = last.seconds / last.seconds_expected if last.seconds_expected else 0.0
    return (
        f"of {last.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC. For what has run since: {span(last.seconds)} of work "
        f"instead of {span(last.seconds_expected)} ({times:,.1f} times), {count(last.files, 'file')} instead of "
        f"{last.files_expected:,.0f} ({more:+.0%})"
    )


_QUERIES: Mapping[Query, str] = {
    Query.WAIT: (
        'They, and their profiles, will wait: set source.query to "keep" where what serves S3 understands them, or to '
        '"drop" where they mean nothing.'
    ),
    Query.DROP: 'source.query = "drop" takes it away; a rollback brings it back.',
    Query.KEEP: 'source.query = "keep" appends it to the new URL.',
}
