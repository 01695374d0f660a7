"""The truth table of an audit: every combination of facts, and its one finding."""

from itertools import product

import pytest

from migration_pipeline.core.findings import Facts, Finding, classify
from migration_pipeline.core.model import Evidence
from migration_pipeline.core.ports import ObjectFacts
from migration_pipeline.core.urls import UrlKind

EVIDENCE = Evidence(5, b"m" * 16, "etag", '"source"')
SAME = ObjectFacts(5, b"m" * 16, "etag")
BOTH = (False, True)


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (Facts(UrlKind.FOREIGN), Finding.FOREIGN),
        (Facts(UrlKind.OTHER_CONTAINER), Finding.FOREIGN),
        (Facts(UrlKind.UNPARSABLE), Finding.FOREIGN),  # at S3, where it names no key
        (Facts(UrlKind.UNPARSABLE, holds=True), Finding.UNPARSABLE),
        (Facts(UrlKind.EMBEDDED, holds=True), Finding.EMBEDDED),
        (Facts(UrlKind.EMBEDDED, holds=True, flagged=True), Finding.STALE),
        (Facts(UrlKind.SOURCE, stays=True, flagged=True, found=SAME, evidence=EVIDENCE), Finding.SOUND),
        (Facts(UrlKind.SOURCE, stays=True, in_source=True), Finding.WAITING),
        (Facts(UrlKind.SOURCE, in_source=True), Finding.WAITING),
        (Facts(UrlKind.SOURCE, in_source=False), Finding.DANGLING),
        (Facts(UrlKind.SOURCE, in_source=False, flagged=True, waived=True), Finding.DANGLING),
        (Facts(UrlKind.SOURCE, in_source=True, flagged=True), Finding.STALE),
        (Facts(UrlKind.SOURCE, in_source=True, flagged=True, only_in_firebase=True), Finding.STALE),
        (Facts(UrlKind.SOURCE, in_source=True, flagged=True, waived=True), Finding.WAITING),
        (Facts(UrlKind.SOURCE, in_source=True, only_in_firebase=True), Finding.DRIFTED),
        (Facts(UrlKind.TARGET), Finding.DANGLING),
        (Facts(UrlKind.TARGET, found=SAME), Finding.SOUND),
        (Facts(UrlKind.TARGET, found=SAME, evidence=EVIDENCE), Finding.SOUND),
        (Facts(UrlKind.TARGET, found=SAME._replace(size=6), evidence=EVIDENCE), Finding.CORRUPT),
        (Facts(UrlKind.TARGET, found=SAME._replace(md5=b"x" * 16), evidence=EVIDENCE), Finding.CORRUPT),
        (Facts(UrlKind.TARGET, found=SAME._replace(md5=None), evidence=EVIDENCE), Finding.SOUND),
        (Facts(UrlKind.TARGET, found=SAME._replace(md5=None, etag="x"), evidence=EVIDENCE), Finding.CORRUPT),
        # The same bytes put there again, in another way: another ETag, and nothing is wrong.
        (Facts(UrlKind.TARGET, found=SAME._replace(etag="x-2"), evidence=EVIDENCE), Finding.SOUND),
        (Facts(UrlKind.TARGET, found=SAME, evidence=EVIDENCE, source_changed=True), Finding.STALE),
        (Facts(UrlKind.TARGET, found=SAME._replace(size=6), evidence=EVIDENCE, source_changed=True), Finding.CORRUPT),
        (Facts(UrlKind.TARGET, found=SAME, evidence=EVIDENCE, only_in_firebase=True), Finding.DRIFTED),
    ],
)
def test_each_combination_has_one_finding(facts: Facts, finding: Finding) -> None:
    assert classify(facts) is finding


def test_what_a_user_would_see_is_always_severe() -> None:
    """Of all combinations: a URL that leads nowhere, or to other bytes, is never called anything milder."""
    for kind, flagged, only, waived, there, changed, found, evidence in product(
        (UrlKind.SOURCE, UrlKind.TARGET), BOTH, BOTH, BOTH, BOTH, BOTH,
        (None, SAME, SAME._replace(size=9)), (None, EVIDENCE),
    ):  # fmt: skip
        finding = classify(
            Facts(
                kind,
                flagged=flagged,
                only_in_firebase=only,
                waived=waived,
                in_source=there,
                source_changed=changed,
                found=found,
                evidence=evidence,
            )
        )
        nowhere = not there if kind is UrlKind.SOURCE else found is None
        other_bytes = kind is UrlKind.TARGET and found is not None and evidence is not None and found != SAME
        assert (finding.severity == 3) == (nowhere or other_bytes)
        assert finding not in (Finding.FOREIGN, Finding.UNPARSABLE, Finding.ORPHAN_COPY)
