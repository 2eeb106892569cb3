"""What the mirror's benchmark makes of its measurements: the parts of it that do no I/O."""

import pytest

from benchmarks.serving.load import Load
from benchmarks.shadow.cells import CELLS, FAULTS
from benchmarks.shadow.cost import Cost
from benchmarks.shadow.faults import COMPARES, FAILS, STANDS, symptom
from benchmarks.shadow.report import Pair, cost_table, fault_table, is_met, table
from greenroom_runtime.contract.report import Failure, VersionReport, VersionState
from greenroom_runtime.contract.shadow import (
    EndReason,
    ProcessEnd,
    ProcessReport,
    ShadowCounts,
    ShadowReport,
)

ABSENT, PROCESS, HANGS = (
    next(cell for cell in (*CELLS, *FAULTS) if cell.name == name)
    for name in ("absent", "process-apart", "hangs")
)


def pair(
    without: int,
    mirrored: int,
    *,
    cell: str = "absent",
    number: int = 0,
    errors: int = 0,
    p99: tuple[float, float] = (2000, 2000),
) -> Pair:
    """Return one measurement of so many requests without a shadow and with it."""
    before, after = (
        Load(requests=requests, seconds=2.0, p50_us=500, p99_us=slowest, errors=errors)
        for requests, slowest in zip((without, mirrored), p99, strict=True)
    )
    return Pair(
        cell=cell,
        round=number,
        without=before,
        mirrored=after,
        cpu_without_us=100.0,
        cpu_mirrored_us=104.0,
        reader_cores=0.25,
        offered=mirrored,
        sent=mirrored // 2,
    )


@pytest.mark.parametrize(("mirrored", "met"), [(9000, True), (8999, False)])
def test_the_median_of_rounds_decides(mirrored: int, *, met: bool) -> None:
    """What else runs on the machine moves both of a pair, and of the pairs' ratios the middle one counts."""
    pairs = [pair(10_000, mirrored), pair(100, 20, number=1), pair(5000, 5000, number=2)]
    assert is_met(ABSENT, pairs) is met
    assert ("0.9: met" if met else "0.9: **not met**") in table(pairs)


def test_a_failed_request_misses_the_goal() -> None:
    """However fast the others were; also where there is no other goal."""
    assert not is_met(ABSENT, [pair(100, 100, errors=1)])
    assert not is_met(PROCESS, [pair(100, 100, cell="process-apart", errors=1)])
    assert is_met(PROCESS, [pair(100, 10, cell="process-apart")])


def test_the_table_has_a_row_for_each_cell_that_was_measured() -> None:
    """With ratios, rates, CPU time, and the share of frames that were sent."""
    told = table([pair(10_000, 9500), pair(10_000, 9500, number=1)]).splitlines()
    assert len(told) == 3
    assert "| nobody listens | 0.950 (0.950-0.950) | 0.9: met | 5000, 4750 | 100, 104 |" in told[2]
    assert told[2].endswith("| 50.0 % | 0 |")


def test_costs_are_judged_by_their_median() -> None:
    """One lucky round makes none of them cheap."""
    told = cost_table(
        [Cost(name="a", median_us=6.0, least_us=1.0), Cost(name="b", median_us=5.9, least_us=5)]
    )
    assert "| a | 6: **not met** | 6.0 | 1.0 |" in told
    assert "| b | 6: met | 5.9 | 5.0 |" in told


@pytest.mark.parametrize(("slowest", "met"), [(2200, True), (2201, False)])
def test_a_fault_is_judged_by_the_slowest_answers(slowest: float, *, met: bool) -> None:
    """Their ratio's median, with what the shadow took of the processor beside it."""
    pairs = [
        pair(1000, 900, cell="hangs", p99=(2000, slowest)),
        pair(1000, 900, cell="hangs", number=1, p99=(4000, 2000)),
        pair(1000, 900, cell="hangs", number=2, p99=(1000, 9000)),
    ]
    assert is_met(HANGS, pairs) is met
    told = fault_table(pairs).splitlines()
    assert len(told) == 3
    assert ("1.1: met" if met else "1.1: **not met**") in told[2]
    assert "| 500, 450 | 2000, 2201 | 0.25 | 50.0 % | 0 |".replace("2201", str(slowest)) in told[2]
    assert table(pairs) == ""


def shadow(*, state: VersionState = VersionState.READY, **counts: int) -> ShadowReport:
    """Return what a shadow tells that holds its version, or cannot."""
    failure = Failure(reason="NoSuchVersion", message="no") if state is VersionState.FAILED else None
    version = VersionReport(name="v2", state=state, failure=failure)
    return ShadowReport(
        pod="p", instance="i", process=ProcessReport(version=version, counts=ShadowCounts(**counts))
    )


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (shadow(received=9, compared=9), COMPARES),
        (shadow(received=9, compared=1, failed=8), FAILS),
        (shadow(), STANDS),
        (shadow(state=VersionState.FAILED, unready=9), "NoSuchVersion"),
        (ShadowReport(pod="p", instance="i"), STANDS),
        (
            shadow(compared=1).model_copy(
                update={"end": ProcessEnd(reason=EndReason.HUNG, message="", seconds_ago=1.0)}
            ),
            "Hung",
        ),
    ],
)
def test_a_fault_that_was_not_there_is_not_measured(report: ShadowReport, told: str) -> None:
    """What a shadow says of itself tells each fault from health."""
    assert symptom(report) == told
    assert told == COMPARES or told not in FAULTS[0].shows
