"""What a release may be like: how often its users fail, how long its answers take, who its users are."""

from dataclasses import dataclass
from enum import StrEnum

STEPS = (0.01, 0.1, 0.5)
"""The shares of users of a rollout's steps."""
HOLD_SECONDS = 600.0
"""The least that each step takes."""
PATIENCE_SECONDS = 7200.0
"""The most: whoever has come to no verdict by then is stuck."""


class Truth(StrEnum):
    """What a perfect gate would say."""

    WITHIN = "within the bounds"
    AT = "at a bound"
    BEYOND = "beyond a bound"


class Frailty(StrEnum):
    """How errors are spread over users."""

    NONE = "none"
    """Any user's request fails as likely as any other's."""
    GAMMA = "gamma"
    """Half of the errors are a tenth of the users'."""
    CLUSTERED = "clustered"
    """Two of a hundred users have four of five errors; with a worse version there are more such users."""
    SAME_USERS = "same users"
    """Likewise, but a worse version has the same users fail more often."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of release. The bounds are 1.5 for errors and 1.3 for latency."""

    name: str
    truth: Truth
    errors: float = 0.01
    """How likely a request to production fails."""
    error_ratio: float = 1.0
    """How many times as likely one to the rollout does."""
    from_step: int = 0
    """The first step in which it does."""
    frailty: Frailty = Frailty.GAMMA
    drifts: bool = False
    """Whether errors rise to three times as many and fall again, within 15 minutes."""
    slower: float = 1.0
    """How many times as long the rollout's answers take."""
    spread: float = 0.5
    """The standard deviation of an answer's logarithm in seconds."""
    noisy: bool = False
    """Whether one of the three pods has a neighbour that makes it three times as slow, time and again."""
    zipf: float = 0.9
    """How few users send most of the requests: the n-th has a rate of n to the power of minus this."""
    users: int = 200_000
    requests_per_second: float = 1000.0


CASES = (
    Case(name="equal, 1 % errors", truth=Truth.WITHIN),
    Case(name="equal, errors drift to 3 % and back", truth=Truth.WITHIN, drifts=True),
    Case(name="equal, few users have most errors", truth=Truth.WITHIN, frailty=Frailty.CLUSTERED),
    Case(name="equal, no errors at all", truth=Truth.WITHIN, errors=0.0),
    Case(name="equal, answers of all lengths", truth=Truth.WITHIN, errors=0.0, spread=1.0),
    Case(name="equal, a noisy neighbour on one pod", truth=Truth.WITHIN, errors=0.0, noisy=True),
    Case(name="1.2 times the errors", truth=Truth.WITHIN, error_ratio=1.2, frailty=Frailty.NONE),
    Case(
        name="1.5 times the errors, 1.4 times the users with any",
        truth=Truth.AT,
        error_ratio=1.5,
        frailty=Frailty.NONE,
    ),
    Case(
        name="1.5 times the users with errors, few of them",
        truth=Truth.AT,
        error_ratio=1.5,
        frailty=Frailty.CLUSTERED,
    ),
    Case(
        name="the same few users have 1.5 times the errors",
        truth=Truth.AT,
        error_ratio=1.5,
        frailty=Frailty.SAME_USERS,
    ),
    Case(name="1.3 times as slow", truth=Truth.AT, errors=0.0, slower=1.3),
    Case(
        name="2 times the errors", truth=Truth.BEYOND, error_ratio=2.0, frailty=Frailty.NONE, users=1_000_000
    ),
    Case(name="10 times the errors, 0.1 to 1 %", truth=Truth.BEYOND, errors=0.001, error_ratio=10.0),
    Case(
        name="10 times the errors, from the second step on",
        truth=Truth.BEYOND,
        error_ratio=10.0,
        from_step=1,
    ),
    Case(name="2 times as slow", truth=Truth.BEYOND, errors=0.0, slower=2.0),
    Case(
        name="1.5 times the errors, all users alike",
        truth=Truth.AT,
        error_ratio=1.5,
        frailty=Frailty.NONE,
        zipf=0.0,
    ),
)
