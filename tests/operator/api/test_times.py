"""Durations and moments."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_operator.api.times import DurationError, format_timestamp, parse_duration, parse_timestamp


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("0s", timedelta()),
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("5m250ms", timedelta(minutes=5, milliseconds=250)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("99999h", timedelta(hours=99999)),
    ],
)
def test_durations_mean_what_people_write(text: str, meaning: timedelta) -> None:
    """Hours, minutes, seconds and milliseconds add up."""
    assert parse_duration(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "1.5s",
        "-5s",
        "+5s",
        "5 s",
        "30m1h",
        "1s1s",
        "1d",
        "5m\n",
        " 5m",
        "٣s",
        "100000h",
        "10 minutes",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    """The error shows the text and says how to write one."""
    with pytest.raises(DurationError, match="write whole numbers with h, m, s or ms") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.text(alphabet="0123456789hms ", max_size=12))
def test_garbage_gives_a_duration_or_an_error_of_ours(text: str) -> None:
    """No text makes the parser fail in another way, or gives a negative time."""
    with contextlib.suppress(DurationError):
        assert parse_duration(text) >= timedelta()


def test_a_moment_has_one_spelling() -> None:
    """Whole seconds, UTC, a Z: the same moment from another zone is the same text."""
    moment = datetime(2026, 11, 3, 9, 30, 15, 999_999, tzinfo=UTC)
    assert format_timestamp(moment) == "2026-11-03T09:30:15Z"
    assert format_timestamp(moment.astimezone(timezone(timedelta(hours=2)))) == "2026-11-03T09:30:15Z"


def test_a_moment_without_a_zone_is_refused() -> None:
    """The API server would refuse it as well, much later."""
    with pytest.raises(ValueError, match="has no time zone"):
        format_timestamp(datetime(2026, 11, 3))  # noqa: DTZ001 this is the mistake


@given(st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 the zone is beside it
def test_a_moment_survives_the_round_trip(moment: datetime) -> None:
    """What was formatted is parsed to the same second."""
    assert parse_timestamp(format_timestamp(moment)) == moment.replace(microsecond=0)
