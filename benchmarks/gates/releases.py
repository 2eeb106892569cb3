"""Play releases from step to step until they are failed, have passed every step, or are stuck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gates.cases import HOLD_SECONDS, STEPS, Case
from benchmarks.gates.judges import Gate, Judge, Thresholds, Verdict, ZTest
from benchmarks.gates.world import SCRAPES, Step, World
from greenroom_operator.controller.gate import Outcome

OURS = "gate"


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of one release by one judge."""

    outcome: Outcome
    """Inconclusive where it is stuck."""
    passed_steps: int


@dataclass(frozen=True, kw_only=True)
class Release:
    """What became of one release."""

    played: Mapping[str, Played]
    """By judge."""
    verdict: Verdict | None
    """None where the first step was stuck."""


def play(case: Case, seed: Sequence[int]) -> Release:
    """Play one release, the same one for each judge."""
    world = World(case, seed)
    gate = Gate()
    judges: Mapping[str, Judge] = {OURS: gate, "z-test": ZTest(), "thresholds": Thresholds(case)}
    played: dict[str, Played] = {}
    for number in range(len(STEPS)):
        step = world.step(number)
        for name, judge in judges.items():
            if name not in played:
                outcome = _play_step(judge, step)
                if outcome is not Outcome.PASS:
                    played[name] = Played(outcome=outcome, passed_steps=number)
        if len(played) == len(judges):
            break
    passed = Played(outcome=Outcome.PASS, passed_steps=len(STEPS))
    return Release(played={name: played.get(name, passed) for name in judges}, verdict=gate.first_verdict)


def _play_step(judge: Judge, step: Step) -> Outcome:
    judge.begin(step)
    for scrape, time in enumerate(SCRAPES):
        outcome = judge.look(scrape)
        if outcome is Outcome.FAIL or (outcome is Outcome.PASS and time >= HOLD_SECONDS):
            return outcome
    return Outcome.INCONCLUSIVE
