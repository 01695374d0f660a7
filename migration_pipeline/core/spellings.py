"""How references were spelled before they were re-pointed, and which spelling each gets back.

A value that names a file as often as it did is spelled again place by place, to the byte. In one that its user changed
since, a reference gets back the first spelling, with the query string that all of the profile's references to the file
had; where these differed, nobody can say which it was, and it stays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from migration_pipeline.core.model import SourceFile, Spelling
from migration_pipeline.core.queries import same
from migration_pipeline.core.reading import Found, moved_back, read, tail_in, target_file
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import UrlRules
from migration_pipeline.core.values import Edit


class _Again(NamedTuple):
    """What a reference is to be spelled like; `verbatim` is as it stood in the raw value."""

    text: str
    verbatim: bool = False


def edits_back(
    texts: Sequence[Text], spelling_of: Callable[[SourceFile], Spelling | None], urls: UrlRules
) -> list[list[Edit]]:
    """What becomes of the texts of one value on the way back.

    Args:
        texts: all of them.
        spelling_of: of the profile's references to a file; `None` for files whose references stay as they are.
        urls: the rules that they were re-pointed by.
    """
    edits: list[list[Edit]] = [[] for _ in texts]
    for file, places in _in_target(texts, urls).items():
        spelling = spelling_of(file)
        if spelling is None:
            continue
        spelling = spelling._replace(url=spelling.url or urls.source_url(file))
        again = _spelled_again([found for _, found in places], texts[places[0][0]].place, spelling)
        for (number, found), url in zip(places, again, strict=True):
            if url is not None:
                edits[number].append(moved_back(found, texts[number], url.text, verbatim=url.verbatim))
    return [sorted(item) for item in edits]


def tails(spelling: Spelling) -> list[str]:
    """What followed the path in each spelling."""
    return [tail_in(raw) for _, spellings in spelling.places for raw in spellings]


def _in_target(texts: Sequence[Text], urls: UrlRules) -> Mapping[SourceFile, list[tuple[int, Found]]]:
    """The URLs into S3 of each file: the number of the text, and where in it."""
    places: dict[SourceFile, list[tuple[int, Found]]] = {}
    for number, text in enumerate(texts):
        for found in read(text, urls):
            file = target_file(found.reference, urls)
            if file is not None:
                places.setdefault(file, []).append((number, found))
    return places


def _spelled_again(found: Sequence[Found], place: str, spelling: Spelling) -> list[_Again | None]:
    """What each of a file's references in one value becomes; `None` for one that stays."""
    lists = [spellings for where, spellings in spelling.places if where == place and len(spellings) == len(found)]
    if lists and all(each == lists[0] for each in lists):
        return [_placed(one, raw, spelling) for one, raw in zip(found, lists[0], strict=True)]
    # Re-pointed by several runs: where query strings were kept, they tell which is which.
    pool = [raw for where, spellings in spelling.places if where == place for raw in spellings]
    if sorted(map(tail_in, pool)) == sorted(one.tail for one in found):
        by_tail = {tail: [raw for raw in reversed(pool) if tail_in(raw) == tail] for tail in set(map(tail_in, pool))}
        return [_Again(by_tail[one.tail].pop(), verbatim=True) for one in found]
    return [_any(one, spelling) for one in found]


def _placed(found: Found, raw: str, spelling: Spelling) -> _Again | None:
    # What the app itself has appended since is kept.
    return _any(found, spelling) if found.tail and found.tail != tail_in(raw) else _Again(raw, verbatim=True)


def _any(found: Found, spelling: Spelling) -> _Again | None:
    tail = found.tail or same(tails(spelling))
    return None if tail is None else _Again(f"{spelling.url}{tail}")
