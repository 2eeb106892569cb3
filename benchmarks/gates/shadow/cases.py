"""What a shadow may be like: how often it answers otherwise, fails or is slow, and who asks."""

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.gates.cases import Truth

PATIENCE_SECONDS = 2 * 3600.0
"""Whoever has come to no verdict by then is undecided."""
LOOK_SECONDS = 5.0
"""How often somebody looks."""
MAX_LATENCY_RATIO = 1.5


class Opinion(StrEnum):
    """Whose requests the shadow answers otherwise."""

    ANYONES = "anyone's"
    """Any request as likely as any other."""
    SOME_USERS = "some users'"
    """All requests of some users, and none of the others."""


@dataclass(frozen=True, kw_only=True)
class ShadowCase:
    """One kind of shadow. The bounds are 2 % of disagreement, 0.1 % of errors and 1.5 times the latency."""

    name: str
    truth: Truth
    disagreement: float = 0.005
    """How likely it answers a request, or a user, otherwise."""
    later_disagreement: float | None = None
    """How likely from the tenth minute on; None for as before."""
    drifts: bool = False
    """Whether that goes to twice as much, to nothing, and back, every 10 minutes."""
    opinion: Opinion = Opinion.ANYONES
    errors: float = 0.0
    """How likely it cannot answer a request."""
    slower: float = 1.0
    """How many times as long its answers take, in the median."""
    spread: float = 0.3
    """The standard deviation of that factor's logarithm, from request to request."""
    noisy: bool = False
    """Whether it has a neighbour that makes it twice as slow for one minute of five."""
    zipf: float = 0.9
    """How few users send most of the requests: the n-th has a rate of n to the power of minus this."""
    users: int = 20_000
    with_ids: bool = True
    """Whether requests say who asks; where they do not each one is its own user."""
    requests_per_second: float = 100.0
    sampled: float = 1.0
    """The share of requests that is mirrored."""
    pods: int = 1
    """All of them see all users."""


def _disagreeing(percent: float, truth: Truth) -> ShadowCase:
    return ShadowCase(name=f"{percent:g} % disagree", truth=truth, disagreement=percent / 100)


CASES = (
    _disagreeing(0.2, Truth.WITHIN),
    _disagreeing(0.5, Truth.WITHIN),
    _disagreeing(1, Truth.WITHIN),
    _disagreeing(2, Truth.AT),
    _disagreeing(3, Truth.BEYOND),
    _disagreeing(4, Truth.BEYOND),
    _disagreeing(10, Truth.BEYOND),
    *(
        ShadowCase(
            name=f"{percent:g} % of users always disagree, few send most",
            truth=truth,
            disagreement=percent / 100,
            opinion=Opinion.SOME_USERS,
            zipf=1.1,
        )
        for percent, truth in ((1, Truth.WITHIN), (2, Truth.AT), (4, Truth.BEYOND))
    ),
    ShadowCase(name="1 % disagree, from 0 to 2 and back", truth=Truth.WITHIN, disagreement=0.01, drifts=True),
    ShadowCase(name="2 % disagree, from 0 to 4 and back", truth=Truth.AT, disagreement=0.02, drifts=True),
    ShadowCase(
        name="0.5 % disagree, 10 % from the tenth minute on", truth=Truth.BEYOND, later_disagreement=0.1
    ),
    *(
        ShadowCase(
            name=f"{percent:g} % disagree, three pods with the same users",
            truth=truth,
            disagreement=percent / 100,
            pods=3,
        )
        for percent, truth in ((1, Truth.WITHIN), (2, Truth.AT))
    ),
    ShadowCase(name="0.5 % disagree, 10 % mirrored", truth=Truth.WITHIN, sampled=0.1),
    ShadowCase(name="0.02 % errors", truth=Truth.WITHIN, errors=0.0002),
    ShadowCase(name="0.05 % errors", truth=Truth.WITHIN, errors=0.0005),
    ShadowCase(name="0.1 % errors", truth=Truth.AT, errors=0.001),
    ShadowCase(name="1 % errors", truth=Truth.BEYOND, errors=0.01),
    ShadowCase(name="1.4 times as long", truth=Truth.WITHIN, slower=1.4),
    ShadowCase(name="1.5 times as long", truth=Truth.AT, slower=1.5),
    ShadowCase(name="2 times as long", truth=Truth.BEYOND, slower=2.0),
    ShadowCase(
        name="1.2 times as long, of all lengths, a noisy neighbour",
        truth=Truth.WITHIN,
        slower=1.2,
        spread=1.0,
        noisy=True,
    ),
    ShadowCase(name="0.5 % disagree, a request in 2 seconds", truth=Truth.WITHIN, requests_per_second=0.5),
    ShadowCase(name="0.5 % disagree, 2 requests a second", truth=Truth.WITHIN, requests_per_second=2.0),
    ShadowCase(
        name="4 % disagree, 2 requests a second",
        truth=Truth.BEYOND,
        disagreement=0.04,
        requests_per_second=2.0,
    ),
    ShadowCase(name="0.5 % disagree, nobody has an id", truth=Truth.WITHIN, with_ids=False),
    ShadowCase(
        name="1 % of users always disagree, few send most, nobody has an id",
        truth=Truth.WITHIN,
        disagreement=0.01,
        opinion=Opinion.SOME_USERS,
        zipf=1.1,
        with_ids=False,
    ),
)
