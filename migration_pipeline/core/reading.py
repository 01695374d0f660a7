"""What the texts of a value refer to, and what becomes of the references: the one look of all stages.

Each text ends as references, or as none because it names no host of the source: nothing that names the source is passed
over (`UrlKind.EMBEDDED`).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from migration_pipeline.core.embedded import Occurrence, occurrences, surely_ended, unescaped, written_like
from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.queries import Query, split, unsigned
from migration_pipeline.core.seeing import Names
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules
from migration_pipeline.core.values import Edit, raw_part

ASKING = "query"
"""What references with a query string or a fragment that may mean something are counted under."""
HOLDING = (UrlKind.EMBEDDED.value, UrlKind.UNPARSABLE.value, ASKING)
"""What profiles wait for that wait for no file."""
_IN_A_KEY = "names the source in the key of an object, which is never rewritten"
_MAY_FOLLOW = ".,;:!?)]}'*_~"
_ODD_IN_URLS = frozenset("\"<>\\`'()|")
_UNDERSTOOD = (UrlKind.SOURCE, UrlKind.TARGET)
_LEFT_OVER = "names the source where it is not sure where a URL begins or ends, or in another URL"


class Found(NamedTuple):
    """A reference in a text.

    Attributes:
        start, end: where it stands; of what is only seen, both are 0.
        written: as it is written, without escapes.
        tail: its query string and fragment, without a SAS.
    """

    reference: Reference
    start: int = 0
    end: int = 0
    written: str = ""
    tail: str = ""


def each(texts: Iterable[Text], urls: UrlRules) -> Iterator[tuple[Text, Reference]]:
    """What these refer to, one reference after the other."""
    for text in texts:
        for found in read(text, urls):
            yield text, found.reference


def references(texts: Iterable[Text], urls: UrlRules) -> Iterator[Reference]:
    """The same without the texts."""
    return (reference for _, reference in each(texts, urls))


def read(text: Text, urls: UrlRules) -> list[Found]:
    """What one text refers to, in order."""
    if text.is_key:
        return [Found(urls.embedded(text.text, _IN_A_KEY))] if urls.source.sees(text.text) else []
    if text.form.embedded:
        return list(_in_text(text.text, urls))
    if text.form.base is not None and "//" not in text.text:
        return _by_name(text, urls)
    whole = urls.whole(text.text)
    if whole is None:
        return []
    return [Found(whole.reference, whole.start, whole.end, text.text[whole.start : whole.end], whole.tail)]


def moved_to(found: Found, text: Text, urls: UrlRules) -> Edit | None:
    """What a reference becomes whose file is in S3; `None` where it is to stay."""
    reference = found.reference
    if reference.file is None or reference.waits or reference.stays:
        return None
    tail = found.tail if urls.query is Query.KEEP else ""
    new = urls.target_url(reference.file)
    new = surely_ended(new) if text.form.embedded and not tail else new + tail
    return Edit(found.start, found.end, _in_form(text, found, new))


def moved_back(found: Found, text: Text, spelling: str, *, verbatim: bool) -> Edit:
    """A reference, spelled so again; with `verbatim` as it stood in the raw value."""
    return Edit(found.start, found.end, spelling if verbatim else _in_form(text, found, spelling), verbatim)


def target_file(reference: Reference, urls: UrlRules) -> SourceFile | None:
    """The blob whose copy a URL into S3 names by its key."""
    return urls.file_of(reference.key or "") if reference.kind is UrlKind.TARGET else None


def spelled(found: Found, text: Text) -> str:
    """A reference as it stands in the raw value, without a SAS."""
    raw = raw_part(text, found.start, found.end)
    # Without escapes: where the SAS begins may be escaped itself.
    return split(unescaped(raw))[0] + found.tail if found.reference.had_query else raw


def tail_in(raw: str) -> str:
    """What followed the path of a reference that was `spelled` so."""
    return split(unescaped(raw))[1]


def named(texts: Iterable[Text], names: Names, urls: UrlRules) -> set[SourceFile]:
    """Those files that the texts name, at the source or in S3, understood or not: what a guard has to spare."""
    return {file for text in texts for _, file in _named(text, names, urls)}


def named_at_source(texts: Iterable[Text], names: Names, urls: UrlRules) -> set[SourceFile]:
    """Those files that the texts name at the source, understood or not."""
    return {file for text in texts for in_target, file in _named(text, names, urls) if not in_target}


def named_in_target(texts: Iterable[Text], names: Names, urls: UrlRules) -> set[SourceFile]:
    """Those files whose copies in S3 the texts name."""
    return {file for text in texts for in_target, file in _named(text, names, urls) if in_target}


def _named(text: Text, names: Names, urls: UrlRules) -> Iterator[tuple[bool, SourceFile]]:
    """Whether in S3, and which file."""
    seen = read(text, urls)
    for found in seen:
        file = found.reference.file
        if file is not None:
            # A sign at its end may belong to the text.
            shorter = file._replace(blob=file.blob.rstrip(_MAY_FOLLOW))
            yield from ((False, each) for each in {file, shorter} if each in names)
        elif found.reference.kind is UrlKind.TARGET:
            file = urls.file_of(found.reference.key or "")
            if file is not None and file in names:
                yield True, file
    sure = len(seen) == 1 and seen[0].end and seen[0].reference.kind in _UNDERSTOOD and not text.form.embedded
    if sure and _ODD_IN_URLS.isdisjoint(text.text):
        return
    for place, rest in urls.stores.named(text.text):
        yield from ((place.is_target, file) for file in names.at(place, rest))


def _in_text(text: str, urls: UrlRules) -> Iterator[Found]:
    left, end = list[str](), 0
    for item in occurrences(text, urls.stores):
        found = _occurred(item, urls)
        if found is None:
            continue
        yield found
        left.append(text[end : item.start])
        end = item.end
    rest = " ".join([*left, text[end:]])
    if urls.source.sees(rest):
        yield Found(urls.embedded(rest, _LEFT_OVER))


def _occurred(item: Occurrence, urls: UrlRules) -> Found | None:
    whole = urls.whole(item.url)
    if whole is None or whole.reference.kind in (UrlKind.EMBEDDED, UrlKind.FOREIGN) or len(item.url) != whole.end:
        return None
    return Found(whole.reference, item.start, item.end, item.written, whole.tail)


def _by_name(text: Text, urls: UrlRules) -> list[Found]:
    """A name that the app makes a URL of."""
    name = text.text
    if not name.strip():
        return []
    base = text.form.base or ""
    whole = urls.whole(f"{base}{name}")
    if whole is None or whole.reference.kind in (UrlKind.FOREIGN, UrlKind.OTHER_CONTAINER):
        return []
    reference = whole.reference._replace(shown=unsigned(split(name)[0]), stays=not text.form.repoint)
    return [Found(reference, 0, len(name), name, whole.tail)]


def _in_form(text: Text, found: Found, new: str) -> str:
    if not text.form.embedded:
        return new
    return written_like(text.text[found.start : found.end], found.written, new)


def odd(reference: Reference) -> str | None:
    """What an example of this reference is kept under; `None` where nobody has to look at it."""
    if reference.kind in (UrlKind.FOREIGN, UrlKind.OTHER_CONTAINER, UrlKind.UNPARSABLE, UrlKind.EMBEDDED):
        return reference.kind.value
    return ASKING if reference.asks else None


def example(text: Text, reference: Reference) -> str:
    """A reference as it is shown to operators: no query string, and nothing of the text around it."""
    where = f"{text.place}: " if text.place and reference.kind is not UrlKind.FOREIGN else ""
    return f"{where}{reference.shown} {reference.reason}".rstrip()
