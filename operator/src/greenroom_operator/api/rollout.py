"""A rollout: users who are really served another version than production, and what decides how many."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Extension, Rule, list_map, rules
from greenroom_operator.api.fields import Duration, Message, ModelVersion, Timestamp, Word, between
from greenroom_runtime.contract import flags

MAX_STEPS: Final = 16
EVIDENCE_MAX_LENGTH: Final = 64 * 1024

_HUNDREDTHS = Rule(
    "self * 100.0 - double(int(self * 100.0 + 0.5)) < 0.000001 && "
    "self * 100.0 - double(int(self * 100.0 + 0.5)) > -0.000001",
    "a percentage has at most two decimals, such as 10 or 0.5",
)
Percent = Annotated[float, Field(ge=0, le=100), _HUNDREDTHS]
"""A share of users, exact to 0.01 %."""

_RATIO_PATTERN = "^[0-9]{1,3}([.][0-9]{1,3})?$"
Ratio = Annotated[
    str,
    Field(max_length=8),
    Rule(
        f"self.matches('{_RATIO_PATTERN}') && double(self) > 1.0 && double(self) <= 100.0",
        'a ratio is a number above 1 and at most 100 in quotes, such as "1.5"',
        subject="self",
    ),
]
"""How much worse than production is tolerated."""

_FIELD_FORM = "letters, digits, '-' and '_', beginning with a letter or '_', at most 63 characters"
_NOT_RESERVED = Rule(
    f"self != '{flags.TARGETING_KEY}'",
    "that is flagd's own name for the sticky key: write the name that your requests give it, such as user_id",
    subject="self",
)
FieldName = Annotated[
    str,
    Field(max_length=63),
    Rule(
        f"self.matches('{flags.FIELD_PATTERN}')",
        f"a member of the request is named by {_FIELD_FORM}",
        subject="self",
    ),
    _NOT_RESERVED,
]


class RolloutRule(ApiModel):
    """Users who get the rollout's version whatever its percentage is."""

    name: Annotated[
        str,
        Field(max_length=63),
        Rule(
            f"self.matches('{flags.RULE_NAME_PATTERN}')",
            "a rule's name is letters, digits, '-', '_' and '.', beginning and ending with a letter or "
            "digit, such as beta",
            subject="self",
        ),
    ]
    """What the rule is called; answers tell it in X-Version-Reason, as rule:NAME."""
    attribute: FieldName
    """The member of the request's context that is looked at, such as country or cohorts. The rollout's own
    key, such as user_id, is the user."""
    values: Annotated[
        tuple[
            Annotated[
                str,
                Field(min_length=1, max_length=flags.MAX_VALUE_LENGTH),
                Rule(
                    r"!self.matches(r'[\x00-\x1f\x7f]')",
                    "a value has no control characters",
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=flags.MAX_VALUES, alias="in"),
        Extension((("x-kubernetes-list-type", "set"),)),
    ]
    """The rule matches where the attribute, or one item of it where it is a list, is one of these. Put
    numbers and booleans in quotes."""


class RolloutStep(ApiModel):
    """One share of users, and how long it is held."""

    percent: Annotated[
        Percent,
        Rule(
            "self > 0.0 && self < 100.0",
            "a step is above 0 and below 100: all users follow the last step by themselves",
        ),
    ]
    """Share of users, in percent with at most two decimals."""
    hold: Annotated[Duration, between("0s", "720h")] = "0s"
    """How long the share is held at least, such as 30m. Only time for which pods report evidence counts;
    after it the gate decides. Default 0s."""


class RolloutGate(ApiModel):
    """What must be proven before the next step, and what proves that the version does harm."""

    min_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000
    """Requests that the version must have answered in a step before it passes. At 1 % of users 1000 requests
    are 100,000 of all. Default 1000."""
    max_error_ratio: Ratio = "1.5"
    """How many times as many of its users as of production's may meet an error, in quotes. Proven beyond it
    the rollout is aborted; proven within it the step passes. Default "1.5"."""
    max_latency_ratio: Ratio = "1.3"
    """How many times as long as production it may take to answer, in quotes. Default "1.3"."""
    tolerated_error_percent: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Share of its users, in percent, whose errors are tolerated where production has hardly any to compare
    with. The smaller, the more users a proof needs: some 4 / share. Default 1."""


class Rollout(ApiModel):
    """Another version for some users, who keep it from then on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!(has(self.percent) && has(self.steps))",
                "percent is a fixed share, steps raise it by themselves: give one of them",
            ),
            Rule(
                "!has(self.steps) || (self.steps.map(s, s.percent).isSorted() && "
                "self.steps.all(s, self.steps.exists_one(t, t.percent == s.percent)))",
                "the percentages of the steps must rise: write each share once, the smallest first",
            ),
        )
    )

    version: ModelVersion
    """The version that some users get. Where it equals spec.version the rollout is over."""
    key: FieldName = flags.DEFAULT_KEY
    """The member of the request that a user is known by: user_id, or a member of context. A request without
    it gets production. Default user_id."""
    rules: Annotated[tuple[RolloutRule, ...], Field(max_length=flags.MAX_RULES), list_map("name")] = ()
    """Users who get the version whatever the percentage; the first rule that matches is the reason."""
    percent: Percent | None = None
    """A fixed share of users. 100 completes the rollout. Default 0, which proves the version on every pod and
    routes nobody but those of the rules."""
    steps: (
        Annotated[
            tuple[RolloutStep, ...],
            Field(min_length=1, max_length=MAX_STEPS),
            Extension((("x-kubernetes-list-type", "atomic"),)),
        ]
        | None
    ) = None
    """Rising shares, each held and judged by the gate before the next; all users follow the last."""
    gate: RolloutGate | None = None
    """What decides over the steps. Steps always have a gate, with these fields' defaults; with a fixed
    percent it aborts the rollout where harm is proven."""
    paused: bool = False
    """Stay at the present share. The gate goes on watching, and may still abort. Default false."""


class RolloutState(StrEnum):
    """Where a rollout is."""

    WAITING_FOR_SHADOW = "WaitingForShadow"
    PREPARING = "Preparing"
    RUNNING = "Running"
    HOLDING = "Holding"
    PAUSED = "Paused"
    COMPLETE = "Complete"
    PROMOTED = "Promoted"
    ABORTED = "Aborted"
    REFUSED = "Refused"


class RolloutStatus(ApiModel):
    """How far the rollout is."""

    version: Annotated[str, Field(max_length=63)]
    """The version that is rolled out."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """sha256:… of its bundle.json, as pods proved it."""
    state: RolloutState
    """WaitingForShadow until spec.shadow has passed, Preparing until every pod has proven it, Running once
    users get it, Holding while a step is held and judged, Paused, Complete at 100 %, Promoted once it is
    production; Aborted and Refused route nobody."""
    summary: Word | None = None
    """Version and share, such as v3 (10%)."""
    percent: Word = "0"
    """The share of users that get it, such as 10."""
    step: Annotated[int, Field(ge=0)] | None = None
    """The step that it is at, from 1."""
    steps: Annotated[int, Field(ge=0)] | None = None
    """How many steps there are."""
    start_time: Timestamp | None = None
    """When it was asked for."""
    begin_time: Timestamp | None = None
    """When the first users got it."""
    held_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the present share has been held, as far as pods reported evidence."""
    observed_time: Timestamp | None = None
    """Until when that is counted: at most every 30 seconds."""
    paused_by_action: bool | None = None
    """Whether a person paused it by an action."""
    requests: Annotated[int, Field(ge=0)] | None = None
    """Requests that it has answered at the present share, as the pods that there are counted them."""
    user_buckets: Annotated[int, Field(ge=0)] | None = None
    """Buckets of users, of 4096, that it has answered at the present share."""
    user_buckets_with_errors: Annotated[int, Field(ge=0)] | None = None
    """Those of them that met an error."""
    verdict: Word | None = None
    """What the gate says: Pass, Fail or Inconclusive."""
    reason: Word | None = None
    """Why it was aborted or refused, in one word."""
    message: Message | None = None
    """What it waits for, or why it ended."""
    evidence: Annotated[str, Field(max_length=EVIDENCE_MAX_LENGTH)] | None = None
    """What the gate has counted, for the operator itself."""
    last_crash_time: Timestamp | None = None
    """The newest crash of a serving process that is counted."""
