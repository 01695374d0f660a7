"""What a plan found that somebody has to decide, in sentences for an operator."""

from collections.abc import Iterator, Mapping

from migration_pipeline.core.queries import Query
from migration_pipeline.core.reading import ASKING
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.urls import UrlKind


def to_decide(references: Mapping[str, int], query: Query, files: SampledFiles) -> Iterator[str]:
    """What is wrong, and what to set; nothing where all is well."""
    if references.get(UrlKind.EMBEDDED):
        yield (
            f"{references[UrlKind.EMBEDDED]:,} values name the source inside something larger, or in a spelling that "
            "is not understood; their profiles will wait. Where a column or field holds texts, say so, for example "
            'columns = ["photos", { name = "bio", embedded = true }]: then the URLs in it move. Put others right in '
            "the app."
        )
    if references.get(UrlKind.UNPARSABLE):
        yield (
            f"{references[UrlKind.UNPARSABLE]:,} URLs of the source, or of S3, name no file for sure; profiles with "
            "such of the source will wait until the app has put them right."
        )
    if references.get(ASKING):
        yield f"{references[ASKING]:,} references have a query string or a fragment beside a SAS. {_QUERIES[query]}"
    if references.get(UrlKind.OTHER_CONTAINER):
        yield (
            f"{references[UrlKind.OTHER_CONTAINER]:,} URLs name containers of the account that do not move, and stay. "
            "Name these under source.containers, if they are to move."
        )
    if files.named:
        places = ", ".join(sorted(files.named))
        yield (
            f"{files.named.total():,} of {files.names:,} values that are no URLs are names of blobs ({places}): they "
            "are no references, and their files do not move. Give the column or field a base, what the app puts before "
            'them: { name = "photo", base = "https://acct.blob.core.windows.net/photos/" }.'
        )


_QUERIES: Mapping[Query, str] = {
    Query.WAIT: (
        'They, and their profiles, will wait: set source.query to "keep" where what serves S3 understands them, or to '
        '"drop" where they mean nothing.'
    ),
    Query.DROP: 'source.query = "drop" takes it away; a rollback brings it back.',
    Query.KEEP: 'source.query = "keep" appends it to the new URL.',
}
