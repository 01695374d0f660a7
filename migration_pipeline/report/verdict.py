"""The migration in one sentence: done, or what is missing."""

from typing import NamedTuple

from migration_pipeline.core.cutover import Phase
from migration_pipeline.report.facts import Facts
from migration_pipeline.report.words import counted, plural, size

_REASONS = 3


class Verdict(NamedTuple):
    """Whether every profile is migrated, and what there is to say about it in one sentence."""

    done: bool
    said: str


def verdict(facts: Facts) -> Verdict:
    """Of the ledger's moment."""
    state = facts.standing.status
    if not state.ranges:
        return Verdict(done=False, said="Nothing is planned yet.")
    if not state.complete:
        return Verdict(done=False, said=f"Not done: {', '.join(_missing(facts))}.")
    proven = facts.tally.verified
    said = (
        f"Done: all {plural(state.profiles, 'profile')} in {plural(state.ranges, 'range')} are migrated or had nothing"
        f" to move; {plural(proven, 'file')}, {size(facts.tally.held)}, are in S3, each proven equal to its source"
    )
    if facts.letters.accepted_files:
        accepted = counted(facts.letters.accepted_files, "file", "has", "have")
        said += f" ({accepted} a wrong stored Content-MD5, which somebody accepted)"
    waived = facts.standing.letters_waived
    return Verdict(
        done=True, said=f"{said}; {counted(waived, 'dead letter', 'was', 'were')} waived." if waived else f"{said}."
    )


def cutover_in_words(facts: Facts) -> str:
    """How far the old store's end is."""
    phase, removed = facts.stand.phase, facts.removed
    gone = plural(removed.deleted + removed.archived, "blob")
    if phase is Phase.DECOMMISSIONED:
        return f"The cut-over is at its end: the source is decommissioned, {gone} removed or archived."
    if removed.deleted or removed.archived:
        return f"The cut-over is in the phase {phase}, with {gone} of the source removed or archived."
    return f"The cut-over is in the phase {phase}; nothing was removed from the source."


def _missing(facts: Facts) -> list[str]:
    state = facts.standing.status
    said = []
    if state.waiting:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in state.waiting_for.most_common(_REASONS))
        reasons += ", …" if len(state.waiting_for) > _REASONS else ""
        said.append(f"{counted(state.waiting, 'profile', 'waits', 'wait')}" + (f" ({reasons})" if reasons else ""))
    if state.not_begun:
        said.append(f"{counted(state.not_begun, 'range', 'is', 'are')} still to run")
    if state.working:
        said.append(f"{counted(state.working, 'range', 'is', 'are')} at work, or broke off")
    if state.rolled_back:
        said.append(f"{counted(state.rolled_back, 'range', 'is', 'are')} rolled back")
    done = f"{state.done:,} of {plural(state.ranges, 'range')} {'is' if state.done == 1 else 'are'} done"
    return [done, *said]
