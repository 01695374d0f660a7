"""The copy engine under faults: every file ends with one true outcome, and nothing unproven is called copied."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from migration_pipeline.core.control import Limits, Orders
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.large_file import PART_BYTES
from migration_pipeline.core.model import CopyResult, FileHeaders, Outcome, SourceFile, WantedFile
from migration_pipeline.core.ports import Body, ObjectFacts, Receipt
from migration_pipeline.core.transfer import transfer
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


def copy(source: MemorySource, target: MemoryTarget, attempts: int = 3, **limits: Any) -> CopyResult:
    copier = Copier(source, target, RULES, CopyLimits(max_attempts=attempts, **limits), at_once)
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


def test_tries_that_meet_an_overloaded_store_do_not_count_for_a_while() -> None:
    now = 0.0

    async def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    def copied_after(failures: int, **limits: Any) -> CopyResult:
        nonlocal now
        now = 0.0
        source = MemorySource({FILE: b"x"}, failing(failures, Transient("503", 10.0, overload=True)))
        copier = Copier(source, MemoryTarget(), RULES, CopyLimits(max_attempts=3, **limits), later, lambda: now)
        return asyncio.run(copier.copy(WantedFile(FILE)))

    healed = copied_after(8)
    assert (healed.outcome, healed.attempts) == (Outcome.COPIED, 9)
    given_up = copied_after(1000)
    assert given_up.outcome is Outcome.GAVE_UP
    assert 8 < given_up.attempts < 20
    assert copied_after(8, patience=0).outcome is Outcome.GAVE_UP


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


@pytest.mark.parametrize("length", [7, 2 * PART_BYTES])
def test_a_wrong_content_md5_that_somebody_accepted_is_set_aside(length: int) -> None:
    body, wrong = bytes(length), b"\0" * 16

    class Wrong(MemorySource):
        async def read(self, *given: Any, **named: Any) -> Any:
            return replace(await super().read(*given, **named), md5=wrong)

    target = MemoryTarget()
    copier = Copier(Wrong({FILE: body}), target, RULES, CopyLimits(max_attempts=2), at_once)
    refused = asyncio.run(copier.copy(WantedFile(FILE)))
    assert (refused.outcome, refused.accepted, target.objects) == (Outcome.DIGEST_MISMATCH, False, {})
    result = asyncio.run(copier.copy(WantedFile(FILE, accepted=True)))
    assert (result.outcome, result.md5, result.accepted) == (Outcome.COPIED, md5(body), True)
    assert target.objects == {KEY: body}
    # Of one whose digest is right after all, nothing was set aside.
    copier = Copier(MemorySource({FILE: body}), MemoryTarget(), RULES, CopyLimits(), at_once)
    assert not asyncio.run(copier.copy(WantedFile(FILE, accepted=True))).accepted


def test_what_is_damaged_at_s3_is_not_accepted_with_it() -> None:
    target = MemoryTarget(confirms=lambda _: md5(b"other"))
    copier = Copier(MemorySource({FILE: b"x"}), target, RULES, CopyLimits(max_attempts=2), at_once)
    result = asyncio.run(copier.copy(WantedFile(FILE, accepted=True)))
    assert (result.outcome, target.objects) == (Outcome.DIGEST_MISMATCH, {})


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


@pytest.mark.parametrize("length", [7, 2 * PART_BYTES])
def test_an_error_that_nobody_foresaw_ends_its_file_and_tells_its_type_alone(length: int) -> None:
    target = MemoryTarget()
    source = MemorySource({FILE: bytes(length)}, failing(1, ValueError("password=hunter2")))
    result = copy(source, target)
    assert (result.outcome, result.attempts) == (Outcome.UNFORESEEN, 1)
    assert result.message.split(" at ")[0] == "ValueError"
    assert "hunter2" not in repr(result)
    assert (target.objects, target.uploads) == ({}, [])


def test_an_error_that_nobody_foresaw_harms_nobody_else() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(300)]
    source = MemorySource(dict.fromkeys(files, b"x"), failing(1, KeyError("ETag")))
    recorded: list[CopyResult] = []
    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=8), at_once)
    done = asyncio.run(transfer([WantedFile(f) for f in files], copier, recorded.extend))
    assert done.outcomes == {Outcome.COPIED: 299, Outcome.UNFORESEEN: 1}
    assert len(recorded) == 300


def test_one_bad_file_harms_nobody_else_and_every_result_is_recorded() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(50)]
    source = MemorySource({file: file.blob.encode() for file in files[1:]})
    recorded: list[CopyResult] = []
    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=1, max_attempts=1), at_once)
    done = asyncio.run(transfer([WantedFile(f) for f in files], copier, recorded.extend))
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
    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=1, max_attempts=1), at_once)
    with pytest.raises(Fatal):
        asyncio.run(transfer([WantedFile(f) for f in files], copier, recorded.extend))
    assert len(recorded) == 10
    assert source.reads == 11


def test_nothing_goes_on_where_nothing_can_be_recorded() -> None:
    source = MemorySource({FILE: b"x"})

    def refuse(results: object) -> None:
        assert results
        raise Transient("the ledger is gone")

    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=1, max_attempts=1), at_once)
    with pytest.raises(Transient, match="the ledger is gone"):
        asyncio.run(transfer([WantedFile(FILE)], copier, refuse))


def test_a_part_that_fails_is_tried_again_and_the_others_are_not() -> None:
    body = bytes(3 * PART_BYTES)
    failures, puts = iter([Transient("503")] * 2), []

    def fault() -> None:
        puts.append(1)
        error = next(failures, None)
        if error:
            raise error

    target = MemoryTarget(part_fault=fault)
    source = MemorySource({FILE: body})
    result = copy(source, target)
    assert (result.outcome, result.attempts, source.reads) == (Outcome.COPIED, 1, 1)
    assert len(puts) == 5
    assert target.objects == {KEY: body}


def test_parts_that_arrive_out_of_order_are_digested_in_order() -> None:
    class SlowStart(MemorySource):
        async def read_part(self, file: SourceFile, *, etag: str, start: int, length: int) -> bytes:
            await asyncio.sleep(0.05 if start == 0 else 0)
            return await super().read_part(file, etag=etag, start=start, length=length)

    body = b"".join(bytes([number]) * PART_BYTES for number in range(3))
    target = MemoryTarget()
    result = copy(SlowStart({FILE: body}), target)
    assert (result.outcome, result.md5) == (Outcome.COPIED, md5(body))
    assert target.objects == {KEY: body}


def test_an_upload_that_is_given_up_leaves_no_parts() -> None:
    def fault() -> None:
        raise Transient("503")

    target = MemoryTarget(part_fault=fault)
    assert copy(MemorySource({FILE: bytes(2 * PART_BYTES)}), target).outcome is Outcome.GAVE_UP
    assert (target.objects, target.uploads) == ({}, [])


def test_a_lost_reply_to_the_end_of_an_upload_is_not_uploaded_again() -> None:
    lost, puts = iter([Transient("reply lost")]), []

    def fault() -> None:
        error = next(lost, None)
        if error:
            raise error

    target = MemoryTarget(fault=fault, part_fault=lambda: puts.append(1))
    result = copy(MemorySource({FILE: bytes(2 * PART_BYTES)}), target)
    assert (result.outcome, result.attempts, len(puts)) == (Outcome.ALREADY_THERE, 1, 2)


def test_a_large_blob_written_while_it_is_read_is_read_anew() -> None:
    source, old, new = MemorySource(), bytes(2 * PART_BYTES), b"n" * (2 * PART_BYTES)
    source.blobs[FILE] = old
    reads = iter(range(100))

    def fault(part: bytes) -> bytes:
        if next(reads) == 0:
            source.blobs[FILE] = new
        return part

    source.fault = fault
    target = MemoryTarget()
    result = copy(source, target)
    assert (result.outcome, result.attempts, result.md5) == (Outcome.COPIED, 2, md5(new))
    assert target.objects == {KEY: new}
    assert target.uploads == []


def test_memory_holds_so_many_bodies_whatever_is_in_flight() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(40)]
    held = most = 0

    class Watched(MemoryTarget):
        async def create(
            self, key: str, body: Body, md5: bytes, headers: FileHeaders, *, replaces: str | None = None
        ) -> Receipt:
            nonlocal held, most
            held += len(body)
            most = max(most, held)
            await asyncio.sleep(0)
            held -= len(body)
            return await super().create(key, body, md5, headers, replaces=replaces)

    source = MemorySource({file: bytes(1000) for file in files})
    copier = Copier(source, Watched(), RULES, CopyLimits(in_flight=40, memory=5000), at_once)
    recorded: list[CopyResult] = []
    done = asyncio.run(transfer([WantedFile(f) for f in files], copier, recorded.extend))
    assert done.copied == 40
    assert most <= 5000


def test_a_store_that_gives_back_other_bytes_is_found_out_by_reading_back() -> None:
    for length in (7, 2 * PART_BYTES):
        target = MemoryTarget(reads_back=lambda body: body[:-1] + b"?")
        result = copy(MemorySource({FILE: bytes(length)}), target, read_back="always")
        assert result.outcome is Outcome.DIGEST_MISMATCH
        assert target.objects == {}
    honest = copy(MemorySource({FILE: b"x"}), MemoryTarget(), read_back="always")
    assert honest.outcome is Outcome.COPIED


@pytest.mark.parametrize("length", [7, 2 * PART_BYTES])
def test_what_was_found_damaged_is_never_called_already_there(length: int) -> None:
    """Its removal fails at first: it comes before anything else in the next try."""
    body = bytes(length)
    left = iter([Transient("503")] * 2)

    def refuse() -> None:
        if error := next(left, None):
            raise error

    damage = iter([b"?" * length])
    target = MemoryTarget(reads_back=lambda honest: next(damage, honest), remove_fault=refuse)
    result = copy(MemorySource({FILE: body}), target, 5, read_back="always")
    assert (result.outcome, result.attempts, target.objects) == (Outcome.COPIED, 3, {KEY: body})


def test_what_was_found_damaged_and_stays_is_told_and_no_later_run_takes_it_for_a_copy() -> None:
    def refuse() -> None:
        raise Transient("503")

    target = MemoryTarget(reads_back=lambda _: b"damaged", remove_fault=refuse)
    result = copy(MemorySource({FILE: b"correct"}), target, read_back="always")
    assert (result.outcome, result.attempts) == (Outcome.GAVE_UP, 3)
    assert "could not be removed: 503" in result.message
    assert target.objects
    later = copy(MemorySource({FILE: b"correct"}), target, read_back="always")
    assert later.outcome is Outcome.TARGET_CONFLICT


def test_a_reading_back_whose_answer_is_lost_is_made_again() -> None:
    """The key is taken then, by our own object: it is read, and not believed by what the store says of it."""
    answers = iter([Transient("the connection broke")])

    def damaged(_: bytes) -> bytes:
        if error := next(answers, None):
            raise error
        return b"damaged"

    result = copy(MemorySource({FILE: b"correct"}), MemoryTarget(reads_back=damaged), read_back="always")
    assert result.outcome is Outcome.TARGET_CONFLICT


def test_an_object_that_is_gone_when_it_is_read_back_is_written_again() -> None:
    gone = iter([True])

    class Vanishing(MemoryTarget):
        async def describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
            if read and next(gone, False):
                self.objects.clear()
            return await super().describe(key, read=read)

    target = Vanishing()
    result = copy(MemorySource({FILE: b"x"}), target, read_back="always")
    assert (result.outcome, target.objects) == (Outcome.COPIED, {KEY: b"x"})


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_fault_at_the_end_of_an_upload_does_not_make_the_older_copy_the_result(*, after: bool) -> None:
    """The source was written anew; S3 says 503 as the new parts are to become one object."""
    old, new = b"old", bytes(2 * PART_BYTES)
    left = iter([Transient("503")])

    class Busy(MemoryTarget):
        async def create(self, *given: Any, **named: Any) -> Receipt:
            error = next(left, None)
            if error is not None and not after:
                raise error
            receipt = await super().create(*given, **named)
            if error is not None:
                raise error
            return receipt

    puts: list[int] = []
    target = Busy({KEY: old}, part_fault=lambda: puts.append(1))
    copier = Copier(MemorySource({FILE: new}), target, RULES, CopyLimits(max_attempts=3), at_once)
    result = asyncio.run(copier.copy(WantedFile(FILE, replaces=md5(old).hex())))
    assert result.outcome is (Outcome.ALREADY_THERE if after else Outcome.COPIED)
    assert (target.objects, target.uploads, len(puts)) == ({KEY: new}, [], 2)


def test_a_key_that_is_taken_at_the_end_of_an_upload_leaves_no_parts() -> None:
    class Overtaken(MemoryTarget):
        async def create(self, key: str, *given: Any, **named: Any) -> Receipt:
            self.objects[key] = b"theirs"
            return await super().create(key, *given, **named)

    target = Overtaken()
    result = copy(MemorySource({FILE: bytes(2 * PART_BYTES)}), target)
    assert (result.outcome, target.objects, target.uploads) == (Outcome.TARGET_CONFLICT, {KEY: b"theirs"}, [])


def test_one_in_a_hundred_is_read_back_by_its_name() -> None:
    target = MemoryTarget(reads_back=lambda _: b"garbage")
    files = {SourceFile("photos", f"{n}.jpg"): b"x" for n in range(1000)}
    copier = Copier(MemorySource(dict(files)), target, RULES, CopyLimits(max_attempts=1), at_once)
    recorded: list[CopyResult] = []
    done = asyncio.run(transfer([WantedFile(f) for f in files], copier, recorded.extend))
    assert 3 <= done.outcomes[Outcome.DIGEST_MISMATCH] <= 25


@pytest.mark.parametrize("length", [0, PART_BYTES + 1])
def test_a_missing_content_type_is_guessed_if_wished(length: int) -> None:
    jpeg = b"\xff\xd8\xff\xe0" + bytes(length)
    target = MemoryTarget()
    result = copy(MemorySource({FILE: jpeg}), target, guess_content_type=True)
    assert (target.headers[KEY].content_type, result.guessed_type) == ("image/jpeg", True)
    target = MemoryTarget()
    assert not copy(MemorySource({FILE: jpeg}), target).guessed_type
    assert target.headers[KEY].content_type is None
    assert not copy(MemorySource({FILE: b"words"}), MemoryTarget(), guess_content_type=True).guessed_type


def test_no_more_ends_are_unnoted_than_files_may_be_in_flight() -> None:
    """However slow the ledger is: after a crash, so many files are compared again, and no more."""
    files = [SourceFile("photos", f"{number}.jpg") for number in range(200)]
    source, most, noted = MemorySource(dict.fromkeys(files, b"bytes")), [0], [0]

    def slow(results: Sequence[CopyResult]) -> None:
        time.sleep(0.005)
        most[0] = max(most[0], source.reads - noted[0])
        noted[0] += len(results)

    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=8, read_back="never"), at_once)
    done = asyncio.run(transfer([WantedFile(file) for file in files], copier, slow))
    assert done.copied == noted[0] == 200
    assert 8 <= most[0] <= 16


class Told:
    """A listener that hands over orders as the test gives them."""

    def __init__(self) -> None:
        self.obey: Callable[[Orders], None] = lambda _: None
        self.newest = Orders(None, Limits())

    async def follow(self, obey: Callable[[Orders], None]) -> None:
        self.obey = obey
        await asyncio.Event().wait()


def test_a_pause_lets_files_in_flight_end_and_begins_none() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(100)]
    recorded: list[CopyResult] = []
    told = Told()

    async def story() -> None:
        go = asyncio.Event()

        class Held(MemorySource):
            async def read(self, *given: Any, **named: Any) -> Any:
                await go.wait()
                return await super().read(*given, **named)

        source = Held(dict.fromkeys(files, b"x"))
        copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=4), at_once)
        work = asyncio.create_task(transfer([WantedFile(f) for f in files], copier, recorded.extend, told))  # type: ignore[arg-type] # the part that is used
        await asyncio.sleep(0.01)
        told.obey(Orders("paused", Limits()))
        go.set()
        await asyncio.sleep(0.05)
        assert source.reads == 4
        told.obey(Orders(None, Limits(in_flight=2)))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            done = await work
        assert done.copied == 100

    asyncio.run(story())
    assert len(recorded) == 100


def test_a_refusal_is_told_though_orders_come_while_all_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes its time to end gives its place back to a group that takes nobody any more."""
    monkeypatch.setattr("migration_pipeline.core.control.ASK_SECONDS", 0.001)
    files = [SourceFile("photos", f"{n}.jpg") for n in range(50)]
    told = Told()

    async def story() -> None:
        class Refusing(MemorySource):
            async def read(self, file: SourceFile, **_: Any) -> Any:
                if file == files[0]:
                    await asyncio.sleep(0.01)
                    raise Fatal("403", setting="AZURE_STORAGE_KEY")
                try:
                    await asyncio.Event().wait()
                finally:
                    if file == files[1]:
                        await asyncio.sleep(0.02)
                        told.obey(Orders(None, Limits(in_flight=8)))

        copier = Copier(Refusing({}), MemoryTarget(), RULES, CopyLimits(in_flight=4), at_once)
        with pytest.raises(Fatal, match="403"):
            await transfer([WantedFile(f) for f in files], copier, lambda _: None, told)  # type: ignore[arg-type] # as above

    asyncio.run(story())


def test_what_operators_said_holds_from_the_first_file_on() -> None:
    source = MemorySource({FILE: b"x"})
    told = Told()
    told.newest = Orders(None, Limits(in_flight=1, requests_per_second=7.0))
    copier = Copier(source, MemoryTarget(), RULES, CopyLimits(in_flight=4), at_once)
    asyncio.run(transfer([WantedFile(FILE)], copier, lambda _: None, told))  # type: ignore[arg-type] # as above
    assert (copier.source_pace.ceiling, copier.source_pace.requests_per_second) == (1, 7.0)


def test_more_or_fewer_files_at_once_from_now_on() -> None:
    files = [SourceFile("photos", f"{n}.jpg") for n in range(400)]
    at_once, seen, told = 0, list[int](), Told()

    async def story() -> None:
        class Counted(MemorySource):
            async def read(self, *given: Any, **named: Any) -> Any:
                nonlocal at_once
                at_once += 1
                seen.append(at_once)
                await asyncio.sleep(0.002)
                at_once -= 1
                return await super().read(*given, **named)

        copier = Copier(Counted(dict.fromkeys(files, b"x")), MemoryTarget(), RULES, CopyLimits(in_flight=4))
        work = asyncio.create_task(transfer([WantedFile(f) for f in files], copier, lambda _: None, told))  # type: ignore[arg-type] # as above
        for most, after in ((1, 40), (16, 150)):
            while len(seen) < after:
                await asyncio.sleep(0.001)
            told.obey(Orders(None, Limits(in_flight=most)))
            begun = len(seen)
            while len(seen) < begun + 60:
                await asyncio.sleep(0.001)
            # Those under way, and requests that learn the new ceiling, are left aside.
            assert max(seen[begun + 20 : begun + 60]) <= most
        async with asyncio.timeout(5):
            await work
        assert max(seen[-100:]) == 16

    asyncio.run(story())
