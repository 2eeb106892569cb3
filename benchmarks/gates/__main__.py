"""Play thousands of simulated releases before our gates and before what others use: ``--help`` tells more."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

from benchmarks.gates import cases, releases, table
from benchmarks.gates.shadow import cases as shadow_cases
from benchmarks.gates.shadow import table as shadow_table


class _Kind(Protocol):
    @property
    def name(self) -> str: ...


K = TypeVar("K", bound=_Kind)
P = TypeVar("P")


def main(argv: Sequence[str] | None = None) -> int:
    """Play and print; ``argv`` is the command line's where it is None."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__)
    parser.add_argument("gate", nargs="?", choices=("rollout", "shadow"), default="rollout")
    parser.add_argument("--releases", type=int, default=2000, help="of each kind; default: 2000")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="just these kinds, as the table names them")
    parser.add_argument("--seed", type=int, default=1, help="another one plays other releases; default: 1")
    parser.add_argument(
        "--min-duration", type=float, default=0.0, metavar="SECONDS", help="of a shadow's gate; default: 0"
    )
    arguments = parser.parse_args(argv)
    known = {kind.name for kind in (shadow_cases.CASES if arguments.gate == "shadow" else cases.CASES)}
    if unknown := set(arguments.only or ()) - known:
        parser.error(f"no kind is named {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    if arguments.gate == "shadow":
        head = shadow_table.HEAD
        watch = partial(shadow_table.watch, min_duration=arguments.min_duration)
        rows = _rows(shadow_cases.CASES, watch, shadow_table.row, arguments)
    else:
        head, rows = table.HEAD, _rows(cases.CASES, releases.play, table.row, arguments)
    sys.stdout.write(head)
    for row in rows:
        sys.stdout.write(row)
        sys.stdout.flush()
    return 0


def _rows(
    kinds: Sequence[K],
    play: Callable[[K, Sequence[int]], P],
    row: Callable[[K, Sequence[P]], str],
    arguments: argparse.Namespace,
) -> Iterator[str]:
    for number, kind in enumerate(kinds):
        if not arguments.only or kind.name in arguments.only:
            yield row(
                kind, [play(kind, [arguments.seed, number, each]) for each in range(arguments.releases)]
            )


if __name__ == "__main__":
    sys.exit(main())
