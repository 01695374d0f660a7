"""The rule by which a figure counts as flat, on made-up ones."""

import random
from collections.abc import Callable

import pytest

from migration_pipeline_tests.soak.flatness import flatness
from migration_pipeline_tests.soak.several_workers import ALLOWED

MINUTES, SAMPLES = 30, 180


def over_time(value: Callable[[float], float]) -> list[float]:
    """So many values over half an hour, by the minute that each was taken in."""
    return [value(MINUTES * n / SAMPLES) for n in range(SAMPLES)]


def test_noise_and_warming_up_are_flat() -> None:
    rng = random.Random(1)
    memory = over_time(lambda minute: min(160, 40 + 30 * minute) + rng.gauss(0, 5) + 60 * (rng.random() < 0.05))
    descriptors = over_time(lambda _: rng.choice([14, 15, 15, 16, 24]))
    assert flatness(memory, MINUTES, ALLOWED["memory"]).flat
    assert flatness(descriptors, MINUTES, ALLOWED["descriptors"]).flat


@pytest.mark.parametrize(
    ("figure", "level", "noise", "a_minute"),
    [
        ("memory", 160, 5, 1.0),
        ("descriptors", 15, 1, 1.0),
        ("threads", 18, 1, 1.0),
        ("temporary", 0, 0, 0.2),
        ("connections", 20, 1, 1.0),
        ("ledger_per_file", 900, 10, 25.0),
    ],
)
def test_a_slow_leak_is_not(figure: str, level: float, noise: float, a_minute: float) -> None:
    rng = random.Random(2)
    leaking = flatness(
        over_time(lambda minute: level + a_minute * minute + rng.gauss(0, noise)), MINUTES, ALLOWED[figure]
    )
    assert not leaking.flat
    assert leaking.shows < a_minute
    same = flatness(over_time(lambda _: level + rng.gauss(0, noise)), MINUTES, ALLOWED[figure])
    assert same.flat


def test_what_went_down_is_flat() -> None:
    assert flatness(over_time(lambda minute: 200 - minute), MINUTES, ALLOWED["memory"]).flat
