"""Flags and environment become settings, or an error that says what is wrong."""

import pytest

from greenroom_operator.__main__ import parse_settings
from greenroom_operator.settings import LogFormat


def test_without_anything_it_looks_after_all_namespaces() -> None:
    """The defaults work."""
    settings = parse_settings([], environment={})
    assert settings.namespaces == ()
    assert settings.workers == 8
    assert settings.port == 8080
    assert settings.log_format is LogFormat.JSON


def test_a_flag_wins_over_its_variable() -> None:
    """Each flag has a variable, and what was typed counts more."""
    environment = {"GREENROOM_LEASE_NAME": "theirs", "GREENROOM_PORT": "1", "GREENROOM_NAMESPACES": "a"}
    settings = parse_settings(["--lease-name=mine", "--namespaces= b, c,,b "], environment=environment)
    assert (settings.lease_name, settings.port, settings.namespaces) == ("mine", 1, ("b", "c"))


def test_all_namespaces_wins_over_named_ones() -> None:
    """The chart's flag for a cluster-wide operator."""
    assert parse_settings(["--all-namespaces", "--namespaces=a"], environment={}).namespaces == ()


def test_two_processes_of_one_pod_differ() -> None:
    """A restarted container must not take its predecessor's lease for its own."""
    one, other = (
        parse_settings([], environment={"GREENROOM_POD_NAME": "operator-x"}).identity for _ in range(2)
    )
    assert one != other
    assert one.startswith("operator-x_")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port=99999"], {}, "'99999' is not a port"),
        (["--workers=0"], {}, "'0' is not a whole number of at least 1"),
        ([], {"GREENROOM_WORKERS": "many"}, "'many' is not a whole number of at least 1"),
        (["--log-format=xml"], {}, "'xml' is neither json nor text"),
        ([], {"GREENROOM_LOG_LEVEL": "LOUD"}, "'LOUD' is none of DEBUG, INFO, WARNING, ERROR"),
        (["--unknown"], {}, "--unknown"),
        (["--namespace=a"], {}, "unrecognized arguments: --namespace=a"),
    ],
)
def test_what_is_wrong_is_named(
    arguments: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad value ends the process with 2 and says which value, wherever it came from."""
    with pytest.raises(SystemExit) as ended:
        parse_settings(arguments, environment=environment)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
