"""Play thousands of simulated releases before our gate and before what others use: ``--help`` tells more."""

import argparse
import sys

from benchmarks.gates.cases import CASES
from benchmarks.gates.releases import play
from benchmarks.gates.table import HEAD, row


def main() -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__)
    parser.add_argument("--releases", type=int, default=2000, help="of each kind; default: 2000")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="just these kinds")
    parser.add_argument("--seed", type=int, default=1, help="another one plays other releases; default: 1")
    arguments = parser.parse_args()
    sys.stdout.write(HEAD)
    for number, case in enumerate(CASES):
        if not arguments.only or case.name in arguments.only:
            releases = [play(case, [arguments.seed, number, each]) for each in range(arguments.releases)]
            sys.stdout.write(row(case, releases))
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
