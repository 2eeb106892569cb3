"""Measure the serving runtime beside its peers, or through swaps: ``python -m benchmarks.serving --help``."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.serving import report
from benchmarks.serving.compare import ROOT, Plan, compare
from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.load import LoadError, require_wrk
from benchmarks.serving.model import prepare
from benchmarks.serving.plot import bars
from benchmarks.serving.results import Results, dump, this_machine

CACHE = ROOT / ".tools" / "bench"
RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Measure what the command line asks for; 1 where a contender failed or answered with errors."""
    arguments = _arguments()
    os.environ.setdefault("UV", str(ROOT / ".tools" / "uv" / "bin" / "uv"))
    try:
        require_wrk()
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return _compare(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each contender is started; default: 3"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of load in each cell; default: 10")
    parser.add_argument(
        "--only", nargs="+", choices=[each.name for each in CONTENDERS], help="measure just these"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 2 s, to see that all of it works")
    parser.add_argument("--to", type=Path, help=f"directory for the results; default: {RESULTS.name}/ here")
    return parser.parse_args()


def _compare(arguments: argparse.Namespace) -> int:
    chosen = [each for each in CONTENDERS if not arguments.only or each.name in arguments.only]
    if arguments.quick:
        plan = Plan(rounds=1, seconds=2, warmup_seconds=1)
    else:
        plan = Plan(rounds=arguments.rounds, seconds=arguments.seconds, warmup_seconds=3)
    results = Results(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        seconds=plan.seconds,
        rounds=plan.rounds,
        machine=this_machine(),
    )
    compare(chosen, prepare(CACHE), plan=plan, results=results, environments=CACHE)
    text = report.markdown(results, {each.name: each.about for each in CONTENDERS})
    sys.stdout.write(text)
    # What is rough or partial is not what the documentation quotes.
    partial = arguments.quick or arguments.only
    to: Path = arguments.to or (CACHE / "results" if partial else RESULTS)
    dump(results, to / f"{results.date}.json")
    (to / f"{results.date}.md").write_text(text)
    (to / f"{results.date}.svg").write_text(bars(results))
    sys.stderr.write(f"saved to {to / results.date}.json, .md and .svg\n")
    return 1 if results.failures or any(cell.errors for cell in results.cells) else 0


if __name__ == "__main__":
    sys.exit(main())
