"""How often a proof of our gate is wrong where the rate is just at its bound: exactly, without simulation."""

import numpy as np

from benchmarks.gates.shadow.judges import bounds
from benchmarks.gates.world import Floats
from greenroom_runtime.contract.evidence import WIDE_BUCKETS


def wrong_passes(bound: float) -> float:
    """Return the probability that the rate is ever proven to be below, looked at after each bucket."""
    most, wrong = bounds(bound).most_to_pass, 0.0
    chances = _begin()
    for trials in range(1, WIDE_BUCKETS + 1):
        _try(chances, trials, bound)
        wrong += _take(chances[: most[trials] + 1])
    return wrong


def wrong_fails(bound: float) -> float:
    """Return the probability that it is ever proven to be above."""
    fewest, wrong = bounds(bound).fewest_to_fail, 0.0
    chances = _begin()
    for trials in range(1, WIDE_BUCKETS + 1):
        _try(chances, trials, bound)
        wrong += _take(chances[fewest[trials] : trials + 1])
    return wrong


def _begin() -> Floats:
    """Return how likely each number of hits is that has proven nothing yet: before the first trial, none."""
    chances = np.zeros(WIDE_BUCKETS + 1)
    chances[0] = 1.0
    return chances


def _try(chances: Floats, trials: int, bound: float) -> None:
    hits = chances[:trials] * bound
    chances[:trials] -= hits
    chances[1 : trials + 1] += hits


def _take(proven: Floats) -> float:
    taken = float(proven.sum())
    proven[:] = 0.0
    return taken
