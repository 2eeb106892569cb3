"""From played releases to a table: what each judge made of each kind of release. No I/O."""

import statistics
from collections.abc import Sequence

from benchmarks.gates.cases import Case
from benchmarks.gates.releases import OURS, Release
from greenroom_operator.controller.gate import Outcome

HEAD = (
    "| release | truth | gate: failed | passed step 1 | passed all | stuck | users | requests | minutes | "
    "z-test: failed | thresholds: failed |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)
"""The table's, in Markdown."""


def share_of(releases: Sequence[Release], judge: str, outcome: Outcome) -> float:
    """Return the share of the releases of which a judge made this."""
    return statistics.fmean(release.played[judge].outcome is outcome for release in releases)


def row(case: Case, releases: Sequence[Release]) -> str:
    """Return a line of the table; users, requests and minutes are medians until step 1's verdict."""
    verdicts = [release.verdict for release in releases if release.verdict is not None]
    first = statistics.fmean(release.played[OURS].passed_steps > 0 for release in releases)
    known = len(verdicts) > len(releases) / 2  # else there is no median to tell
    cells = [
        case.name,
        case.truth.value,
        f"{share_of(releases, OURS, Outcome.FAIL):.1%}",
        f"{first:.1%}",
        f"{share_of(releases, OURS, Outcome.PASS):.1%}",
        f"{share_of(releases, OURS, Outcome.INCONCLUSIVE):.1%}",
        f"{statistics.median(verdict.users for verdict in verdicts):,.0f}" if known else "",
        f"{statistics.median(verdict.requests for verdict in verdicts):,.0f}" if known else "",
        f"{statistics.median(verdict.seconds for verdict in verdicts) / 60:.1f}" if known else "",
        f"{share_of(releases, 'z-test', Outcome.FAIL):.1%}",
        f"{share_of(releases, 'thresholds', Outcome.FAIL):.1%}",
    ]
    return f"| {' | '.join(cells)} |\n"
