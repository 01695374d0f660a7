"""The copy engine under faults: every file ends with one true outcome, and nothing unproven is called copied."""

import asyncio
from collections.abc import Callable

import pytest

from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.transfer import PART_BYTES, Copier, transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline_tests.memory_stores import MemorySource, MemoryTarget, md5

FILE = SourceFile("photos", "1/a.jpg")
KEY = "photos/1/a.jpg"
RULES = UrlRules(
    account_url="https://acct.blob.core.windows.net",
    containers=["photos"],
    alias_hosts={},
    public_base_url="https://cdn.example.com",
    other_target_urls=[],
    keys=KeyTemplate("", "{container}/{blob}"),
)


async def at_once(seconds: float) -> None:
    assert seconds >= 0


def copy(source: MemorySource, target: MemoryTarget, attempts: int = 3) -> CopyResult:
    copier = Copier(source, target, RULES, attempts, at_once)
    return asyncio.run(copier.copy(WantedFile(FILE)))


def failing(times: int, error: Exception) -> Callable[[bytes], bytes]:
    left = iter(range(times))

    def fault(body: bytes) -> bytes:
        if next(left, None) is not None:
            raise error
        return body

    return fault


def test_a_file_is_copied_with_its_digest() -> None:
    target = MemoryTarget()
    result = copy(MemorySource({FILE: b"bytes"}), target)
    assert (result.outcome, result.size, result.md5, result.attempts) == (Outcome.COPIED, 5, md5(b"bytes"), 1)
    assert target.objects == {KEY: b"bytes"}


def test_passing_errors_are_tried_again_and_then_given_up() -> None:
    target = MemoryTarget()
    healed = copy(MemorySource({FILE: b"x"}, failing(2, Transient("503"))), target)
    assert (healed.outcome, healed.attempts) == (Outcome.COPIED, 3)
    given_up = copy(MemorySource({FILE: b"x"}, failing(9, Transient("503"))), MemoryTarget())
    assert (given_up.outcome, given_up.attempts, given_up.message) == (Outcome.GAVE_UP, 3, "503")


def test_a_lost_reply_is_found_to_be_there_and_not_written_twice() -> None:
    lost = iter([Transient("reply lost")])

    def fault() -> None:
        error = next(lost, None)
        if error:
            raise error

    target = MemoryTarget(fault=fault)
    assert copy(MemorySource({FILE: b"x"}), target).outcome is Outcome.ALREADY_THERE


def test_bytes_damaged_on_the_way_are_never_stored() -> None:
    damage = iter([b"damaged"])
    target = MemoryTarget()
    assert copy(MemorySource({FILE: b"correct"}, lambda body: next(damage, body)), target).outcome is Outcome.COPIED
    assert target.objects == {KEY: b"correct"}
    target = MemoryTarget()
    assert copy(MemorySource({FILE: b"correct"}, lambda _: b"damaged"), target).outcome is Outcome.DIGEST_MISMATCH
    assert target.objects == {}


def test_a_short_body_is_a_passing_error() -> None:
    target = MemoryTarget()
    assert copy(MemorySource({FILE: b"correct"}, lambda body: body[:-1]), target).outcome is Outcome.GAVE_UP
    assert target.objects == {}


def test_a_store_that_confirms_other_bytes_is_not_believed() -> None:
    target = MemoryTarget(confirms=lambda _: md5(b"other"))
    assert copy(MemorySource({FILE: b"x"}), target).outcome is Outcome.DIGEST_MISMATCH
    assert target.objects == {}


def test_other_bytes_under_the_key_stay() -> None:
    target = MemoryTarget({KEY: b"theirs"})
    assert copy(MemorySource({FILE: b"ours"}), target).outcome is Outcome.TARGET_CONFLICT
    assert target.objects == {KEY: b"theirs"}


@pytest.mark.parametrize("length", [PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_large_files_go_in_parts(length: int) -> None:
    body = bytes(length - 1) + b"!"
    target = MemoryTarget()
    result = copy(MemorySource({FILE: body}), target)
    assert (result.outcome, result.md5) == (Outcome.COPIED, md5(body))
    assert target.objects == {KEY: body}


def test_a_large_file_that_arrives_damaged_leaves_no_object() -> None:
    target = MemoryTarget()
    source = MemorySource({FILE: bytes(PART_BYTES + 1)}, lambda part: b"!" * len(part))
    assert copy(source, target).outcome is Outcome.DIGEST_MISMATCH
    assert target.objects == {}


def test_one_bad_file_harms_nobody_else_and_every_result_is_recorded() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(50)]
    source = MemorySource({file: file.blob.encode() for file in files[1:]})
    recorded: list[CopyResult] = []
    copier = Copier(source, MemoryTarget(), RULES, 1, at_once)
    done = asyncio.run(transfer([WantedFile(f) for f in files], copier, in_flight=4, record=recorded.extend))
    assert done.outcomes == {Outcome.COPIED: 49, Outcome.SOURCE_MISSING: 1}
    assert {result.file for result in recorded} == set(files)


def test_a_store_that_refuses_us_stops_the_transfer_and_keeps_what_ended() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(50)]
    reads = iter(range(50))

    def fault(body: bytes) -> bytes:
        if next(reads) == 10:
            raise Fatal("403", setting="AZURE_STORAGE_KEY")
        return body

    source = MemorySource(dict.fromkeys(files, b"x"), fault)
    recorded: list[CopyResult] = []
    copier = Copier(source, MemoryTarget(), RULES, 1, at_once)
    with pytest.raises(Fatal):
        asyncio.run(transfer([WantedFile(f) for f in files], copier, in_flight=1, record=recorded.extend))
    assert len(recorded) == 10
    assert source.reads == 11


def test_nothing_goes_on_where_nothing_can_be_recorded() -> None:
    source = MemorySource({FILE: b"x"})

    def refuse(results: object) -> None:
        assert results
        raise Transient("the ledger is gone")

    copier = Copier(source, MemoryTarget(), RULES, 1, at_once)
    with pytest.raises(ExceptionGroup):
        asyncio.run(transfer([WantedFile(FILE)], copier, in_flight=1, record=refuse))
