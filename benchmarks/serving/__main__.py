"""Measure the serving runtime beside its peers, or through swaps: ``python -m benchmarks.serving --help``."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.serving import report
from benchmarks.serving.compare import CONNECTIONS, ROOT, Plan, compare
from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.load import LoadError, require_wrk
from benchmarks.serving.model import prepare
from benchmarks.serving.plot import bars
from benchmarks.serving.results import Results, dump, load, this_machine
from benchmarks.serving.swap import measure_swaps, swap_markdown

CACHE = ROOT / ".tools" / "bench"
RESULTS = Path(__file__).with_name("results")
_MEMORY = ("greenroom", "greenroom-bare", "fastapi-naive", *report.MLSERVER, *report.BENTOML)


def main() -> int:
    """Measure what the command line asks for; 1 where a contender failed or answered with errors."""
    arguments = _arguments()
    if arguments.saved:
        sys.stdout.write(_told(load(arguments.saved)))
        return 0
    os.environ.setdefault("UV", str(ROOT / ".tools" / "uv" / "bin" / "uv"))
    try:
        require_wrk()
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    commands = {"compare": _compare, "memory": _memory, "swap": _swap}
    return commands[arguments.what](arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description="compare: throughput and latency beside the peers; memory: start-up and RSS beside those "
        "that issue 4 names; swap: latency, failed requests and RSS through swaps of a version.",
    )
    parser.add_argument("what", nargs="?", choices=["compare", "memory", "swap"], default="compare")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender starts; default: 3")
    parser.add_argument("--seconds", type=int, default=10, help="of load in each cell; default: 10")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in CONTENDERS], help="just these")
    parser.add_argument("--swaps", type=int, default=100, help="of each kind; default: 100")
    parser.add_argument("--rate", type=float, default=1000, help="requests/s through swaps; default: 1000")
    parser.add_argument("--quick", action="store_true", help="once and briefly: does all of it work?")
    parser.add_argument("--saved", type=Path, help="measure nothing: tell of a comparison saved as JSON")
    parser.add_argument("--to", type=Path, help=f"directory for the results; default: {RESULTS.name}/ here")
    return parser.parse_args()


def _compare(arguments: argparse.Namespace) -> int:
    names = arguments.only or [each.name for each in CONTENDERS]
    results = _run(arguments, names, connections=CONNECTIONS)
    text = _told(results)
    place = _place(arguments, partial=bool(arguments.only)) / results.date
    dump(results, place.with_suffix(".json"))
    place.with_suffix(".svg").write_text(bars(results))
    return _conclude(results, text, place)


def _told(results: Results) -> str:
    return report.markdown(results, {each.name: each.about for each in CONTENDERS})


def _memory(arguments: argparse.Namespace) -> int:
    names = arguments.only or _MEMORY
    results = _run(arguments, names, connections=(8,))
    text = report.memory_markdown(results)
    place = _place(arguments, partial=bool(arguments.only)) / f"{results.date}-memory"
    dump(results, place.with_suffix(".json"))
    return _conclude(results, text, place)


def _swap(arguments: argparse.Namespace) -> int:
    results = measure_swaps(
        prepare(CACHE),
        date=_today(),
        count=5 if arguments.quick else arguments.swaps,
        rate=arguments.rate,
        quiet_seconds=1.0,
    )
    text = swap_markdown(results)
    place = _place(arguments, partial=False) / f"{results.date}-swap"
    dump(results, place.with_suffix(".json"))
    _say(text, place)
    return 1 if any(swaps.failed for swaps in results.swaps) else 0


def _run(arguments: argparse.Namespace, names: Sequence[str], *, connections: tuple[int, ...]) -> Results:
    if arguments.quick:
        plan = Plan(rounds=1, seconds=2, warmup_seconds=1, connections=connections)
    else:
        plan = Plan(
            rounds=arguments.rounds, seconds=arguments.seconds, warmup_seconds=3, connections=connections
        )
    results = Results(date=_today(), seconds=plan.seconds, rounds=plan.rounds, machine=this_machine())
    chosen = [each for each in CONTENDERS if each.name in names]
    compare(chosen, prepare(CACHE), plan=plan, results=results, environments=CACHE)
    return results


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _place(arguments: argparse.Namespace, *, partial: bool) -> Path:
    """Return where results go: rough or partial ones not to where the documentation quotes from."""
    default = CACHE / "results" if partial or arguments.quick else RESULTS
    place: Path = arguments.to or default
    place.mkdir(parents=True, exist_ok=True)
    return place


def _conclude(results: Results, text: str, place: Path) -> int:
    _say(text, place)
    return 1 if results.failures or any(cell.errors for cell in results.cells) else 0


def _say(text: str, place: Path) -> None:
    place.with_suffix(".md").write_text(text)
    sys.stdout.write(text)
    sys.stderr.write(f"saved to {place}.*\n")


if __name__ == "__main__":
    sys.exit(main())
