"""What the benchmark makes of its measurements: the parts of it that do no I/O."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.serving.load import LoadError, parse_wrk
from benchmarks.serving.model import Row
from benchmarks.serving.plot import bars
from benchmarks.serving.process import Response
from benchmarks.serving.protocols import KSERVE_V1, NAMED, V2, V2_BINARY_OF_USER, write_requests
from benchmarks.serving.report import GOALS, goals_table, judge, markdown, throughput_table
from benchmarks.serving.results import Cell, Machine, Results, Start, dump, load
from benchmarks.serving.servers.scoring import NUMBERS, TEXTS
from benchmarks.serving.swap import Latency, SwapResults, Swaps, profile, swap_markdown
from benchmarks.serving.traffic import Sent, Window, percentile, within

MACHINE = Machine(cpu="abacus", cores=2, kernel="6.1", python="3.11", load_before=0.1)
ROW: Row = {**{name: float(index) for index, name in enumerate(NUMBERS)}, **dict.fromkeys(TEXTS, "ø")}

WRK = """Running 2s test @ http://127.0.0.1:8080
  1 threads and 8 connections
  Latency Distribution
     50%    1.00ms
  Non-2xx or 3xx responses: 3
Requests/sec:   1000.00

{"requests": 2000, "seconds": 2.000000, "p50_us": 1000, "p99_us": 9000, "max_us": 9999, \
"bad_statuses": 3, "socket_errors": 2}
"""


def cell(contender: str, *, rps: float, round_number: int = 0, connections: int = 32) -> Cell:
    """Return a cell; a request costs what the rate says, on a core that is busy throughout."""
    return Cell(
        contender=contender,
        round=round_number,
        connections=connections,
        requests=100,
        rps=rps,
        p50_us=500,
        p99_us=1e6 / rps,
        cpu_us=1e6 / rps,
        errors=0,
    )


def start(contender: str, *, rss: float, cold: float) -> Start:
    """Return one start of a contender."""
    return Start(contender=contender, round=0, cold_start_s=cold, rss_mib=rss, pss_mib=rss / 2)


def results(*cells: Cell, starts: tuple[Start, ...] = ()) -> Results:
    """Return a comparison of these cells."""
    return Results(
        date="2026-11-01", seconds=10, rounds=3, machine=MACHINE, cells=list(cells), starts=list(starts)
    )


def verdicts(measured: Results) -> dict[tuple[str, ...], tuple[float, bool]]:
    """Return median and outcome by the names that a goal compares with."""
    return {
        verdict.goal.against: (verdict.measured.median, verdict.met)
        for verdict in judge(measured)
        if "requests/s" in verdict.goal.text
    }


def test_the_last_line_of_wrk_says_what_was_measured() -> None:
    """Requests, time and latency come from our own line; bad statuses and failed connections are errors."""
    said = parse_wrk(WRK)
    assert (said.requests, said.seconds, said.p50_us, said.p99_us, said.errors) == (2000, 2.0, 1000, 9000, 5)


def test_wrk_without_our_line_is_an_error() -> None:
    """A report that lacks the line, because the script did not run, is never read as zero."""
    with pytest.raises(LoadError, match="wrk reported nothing"):
        parse_wrk("unable to connect to 127.0.0.1:8080 Connection refused")


def test_a_ratio_is_taken_within_a_round() -> None:
    """A slow round slows both contenders, so it says as much of them as any other."""
    measured = results(
        cell("greenroom", rps=8000, round_number=0),
        cell("fastapi-naive", rps=1000, round_number=0),
        cell("greenroom", rps=80, round_number=1),
        cell("fastapi-naive", rps=10, round_number=1),
        cell("greenroom", rps=4000, round_number=2),
        cell("fastapi-naive", rps=1000, round_number=2),
    )
    assert verdicts(measured) == {("fastapi-naive",): (8.0, True)}
    assert "8.00 (4.00-8.00)" in goals_table(judge(measured))


def test_the_best_way_to_run_a_peer_counts() -> None:
    """Against two variants of BentoML ours must be eight times the faster one."""
    measured = results(cell("greenroom", rps=900), cell("bentoml", rps=50), cell("bentoml-async", rps=150))
    assert verdicts(measured) == {("bentoml", "bentoml-async"): (6.0, False)}


def test_memory_and_start_are_judged_against_the_smallest_peer() -> None:
    """Less is better there, and the frugal variant of a peer is the one to beat."""
    measured = results(
        cell("greenroom", rps=900),
        starts=(
            start("greenroom", rss=120, cold=1.0),
            start("bentoml", rss=300, cold=3.0),
            start("bentoml-async", rss=100, cold=1.5),
        ),
    )
    told = {verdict.goal.text: (verdict.measured.median, verdict.met) for verdict in judge(measured)}
    assert told == {
        "RSS, of BentoML": (1.2, False),
        "time to the first answer, of BentoML": (1.0 / 1.5, False),
    }


def test_a_goal_without_its_peer_is_not_judged() -> None:
    """Nothing is said of a contender that was not measured, and the report names those that failed."""
    measured = replace(results(cell("greenroom", rps=900)), failures={"mosec": "round 1: it ended"})
    assert judge(measured) == []
    assert "- mosec: round 1: it ended" in markdown(measured, {})


def test_falling_short_is_said_in_the_table() -> None:
    """A goal that is missed stands in the table beside the measured ratio."""
    measured = results(cell("greenroom", rps=500), cell("asgi-msgspec", rps=1000))
    (line,) = [line for line in goals_table(judge(measured)).splitlines() if "msgspec" in line]
    assert line.endswith("| at least 0.8x | 0.50 (0.50-0.50) | 0.50 (0.50-0.50) | **not met** |")


def test_a_noisy_machine_is_told_of() -> None:
    """Who reads the report learns that something else was running."""
    noisy = replace(results(cell("greenroom", rps=1)), machine=replace(MACHINE, load_before=3.2))
    assert "**The machine was not quiet** (load 3.2 before)" in markdown(noisy, {})


def test_each_contender_has_a_row_for_each_load() -> None:
    """Cells that were not measured are a dash, not a zero."""
    table = throughput_table(results(cell("session-alone", rps=40000, connections=1)))
    assert table.splitlines()[-1] == "| session-alone | 40,000 (40,000-40,000) | - | - | - | - |"


def test_every_goal_of_the_throughput_has_a_bound() -> None:
    """The bounds are those that the goals' texts were agreed with."""
    bounds = {goal.against: goal.bound for goal in GOALS if goal.sense == "at least"}
    assert bounds == {
        ("fastapi-naive",): 4,
        ("kserve-v1", "kserve-v2"): 6,
        ("mlserver",): 6,
        ("bentoml", "bentoml-async"): 8,
        ("mosec",): 1.3,
        ("mosec-batched",): 1.3,
        ("asgi-msgspec",): 0.8,
        ("asgi-pydantic",): 0.8,
    }


def test_saved_results_are_read_again(tmp_path: Path) -> None:
    """A table can be made anew from what was saved."""
    measured = results(cell("greenroom", rps=900), starts=(start("greenroom", rss=120, cold=1.0),))
    dump(measured, tmp_path / "results.json")
    assert load(tmp_path / "results.json") == measured


def test_the_plot_ranks_by_rate() -> None:
    """The fastest is on top, and the plot is well-formed."""
    svg = bars(results(cell("slow & steady", rps=10), cell("greenroom", rps=1000)))
    root = ET.fromstring(svg)  # noqa: S314 it is our own
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[2:] == ["greenroom", "1,000", "slow & steady", "10"]


def test_requests_are_written_as_the_lua_script_reads_them(tmp_path: Path) -> None:
    """Each is preceded by its length in bytes, and names a user of its own."""
    path = tmp_path / "requests.bin"
    write_requests(path, NAMED, [ROW, ROW])
    content = path.read_bytes()
    seen = []
    while content:
        length, _, rest = content.partition(b"\n")
        raw, content = rest[: int(length)], rest[int(length) :]
        head, _, body = raw.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        seen.append(body)
    assert [b'"user_id": "user-0"' in seen[0], b'"user_id": "user-1"' in seen[1]] == [True, True]


def test_answers_are_read_in_each_protocol() -> None:
    """Label and probability come out alike, whatever shape a server gives them."""
    plain = Response(
        status=200, headers={}, body=b'{"predictions": [{"prediction": 1, "probability": 0.75}]}'
    )
    tensors = (
        b'{"outputs": [{"name": "label", "data": [1]}, {"name": "probabilities", "data": [0.25, 0.75]}]}'
    )
    found = [KSERVE_V1.decode(plain), V2.decode(Response(status=200, headers={}, body=tensors))]
    assert [(answer.label, answer.probability) for answer in found] == [(1, 0.75), (1, 0.75)]


def test_binary_tensors_are_read_behind_the_json() -> None:
    """The header says where the JSON ends, and each output how many bytes are its own."""
    head = (
        b'{"model_version": "v2", "outputs": ['
        b'{"name": "prediction", "datatype": "INT64", "parameters": {"binary_data_size": 8}}, '
        b'{"name": "probabilities", "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}'
    )
    tail = (1).to_bytes(8, "little") + b"\x00\x00\x80\x3e" + b"\x00\x00\x40\x3f"
    headers = {"inference-header-content-length": str(len(head))}
    answer = V2_BINARY_OF_USER.decode(Response(status=200, headers=headers, body=head + tail))
    assert (answer.label, answer.probability, answer.version) == (1, 0.75, "v2")


def test_a_percentile_is_one_of_the_values() -> None:
    """Nearest rank, so that a rare slow request is not averaged away."""
    values = [*range(1, 100), 1000]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 1000)
    assert percentile([7.0], 99) == 7.0


def test_requests_belong_to_the_window_in_which_they_were_due() -> None:
    """A window holds its start and not its end, and what lies between windows belongs to none."""
    sent = [Sent(due=float(at), ms=at * 10.0, version="w1") for at in range(10)]
    assert within(sent, [Window(start=1, end=3), Window(start=5, end=7)]) == [10.0, 20.0, 50.0, 60.0]


def test_the_profile_of_a_swap_has_a_value_for_each_tenth_that_all_swaps_have() -> None:
    """The second tenth of both windows is slow, and what only one window has is left out."""
    sent = [
        Sent(due=begin + at / 100, ms=50.0 if 10 <= at < 20 else 1.0, version="w1")
        for begin in (0.005, 10.005)
        for at in range(40)
    ]
    assert profile(sent, [Window(start=0, end=0.35), Window(start=10, end=10.25)]) == [1.0, 50.0]


@pytest.mark.parametrize(
    ("during", "failed", "rss", "told"),
    [
        (1.1, 0, [100.0, 101.0, 102.0, 103.0], ["| 1.10 | 0 | met |", "1.010x (goal: at most 1.05x, met)"]),
        (
            1.3,
            0,
            [100.0, 100.0, 100.0, 106.0],
            ["| 1.30 | 0 | **not met** |", "1.060x", "1.05x, **not met**"],
        ),
        (1.0, 1, [100.0], ["| 1.00 | 1 | **not met** |", "too few swaps"]),
    ],
)
def test_swaps_are_judged_by_latency_failures_and_memory(
    during: float, failed: int, rss: list[float], told: list[str]
) -> None:
    """The slowest hundredth within 1.2x of before, no failed request, memory within 5 %."""
    quiet = Latency(requests=1000, p50_ms=0.5, p99_ms=1.0, worst_ms=2.0)
    swaps = Swaps(
        kind="to a version that must be prepared",
        count=len(rss),
        seconds=1.5,
        quiet=quiet,
        during=replace(quiet, p99_ms=during),
        switch=quiet,
        failed=failed,
        profile_ms=[1.0, 9.5],
    )
    measured = SwapResults(date="2026-11-01", machine=MACHINE, rate=1000, swaps=[swaps], rss_mib=rss)
    text = swap_markdown(measured)
    assert [part for part in told if part not in text] == []
