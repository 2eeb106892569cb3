"""Pure parts of the supervisor: limits, cgroups, ends, waits, and lines that are cut anywhere."""

import json
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract import names
from greenroom_runtime.shadow import ends
from greenroom_runtime.shadow.child import MOST_LINE, MOST_PATIENCE, Words, parse_told
from greenroom_runtime.shadow.ends import MESSAGE_LETTERS, Backoff, Ended, explain
from greenroom_runtime.shadow.memory import Bounds, Cgroup, find_cgroup, find_limit

MIB = 2**20


def ended(code: int = 1, *, limited: bool = True, oom_kills: int = 0, last_words: str = "") -> Ended:
    """Return what is known of a process that nobody killed."""
    return Ended(
        code=code,
        verdict=None,
        peak_bytes=100 * MIB,
        limited=limited,
        oom_kills=oom_kills,
        last_words=last_words,
    )


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (ended(1), ends.CRASHED),
        (ended(0), ends.CRASHED),
        (ended(2), ends.CRASHED),
        (ended(-64), ends.CRASHED),
        (ended(-signal.SIGKILL), ends.CRASHED),
        (ended(-signal.SIGKILL, oom_kills=1), ends.OUT_OF_MEMORY),
        (ended(ends.OUT_OF_MEMORY_CODE), ends.OUT_OF_MEMORY),
        (ended(1, last_words="MemoryError"), ends.OUT_OF_MEMORY),
        (ended(1, last_words="MemoryError", limited=False), ends.CRASHED),
        (ended(-signal.SIGABRT, last_words="what(): std::bad_alloc"), ends.OUT_OF_MEMORY),
        (ended(1, last_words="z" * 10_000), ends.CRASHED),
    ],
)
def test_an_end_is_explained(end: Ended, reason: str) -> None:
    """Each end has a reason, and a message that the report has room for."""
    explained = explain(end, at=1.0)
    assert explained.reason == reason
    assert 0 < len(explained.message) <= MESSAGE_LETTERS


def test_waits_double_until_a_process_has_lived() -> None:
    """The wait doubles up to the longest, and is the first one again after a process that lived."""
    backoff = Backoff(first=0.5, longest=10.0, proven=30.0)
    assert [backoff.after(1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [backoff.after(30.0), backoff.after(29.9)] == [0.5, 1.0]


@pytest.mark.parametrize("limit", [1, 64 * MIB, 124 * MIB])
def test_a_small_limit_is_refused(limit: int) -> None:
    """A limit that leaves no room for interpreter and libraries is refused, with what is needed."""
    assert "raise spec.shadow.resources.limits.memory" in Bounds(limit).complaint


def test_bounds_leave_room() -> None:
    """Memory is refused before the process is killed, and both before the limit."""
    bounds = Bounds(256 * MIB)
    assert bounds.complaint == ""
    assert bounds.kill_bytes is not None
    assert bounds.data_bytes is not None
    assert bounds.kill_bytes < bounds.data_bytes < 256 * MIB
    assert (Bounds(None).kill_bytes, Bounds(None).data_bytes, Bounds(None).complaint) == (None, None, "")


@pytest.mark.parametrize(
    ("told", "own", "limit"),
    [
        ("", None, None),
        ("268435456", None, 268435456),
        ("268435456", "134217728", 134217728),
        ("99999999999", "134217728", 134217728),
        ("", "134217728", 134217728),
        ("", "max", None),
        ("much", None, None),
        ("0", None, None),
        ("-5", None, None),
    ],
)
def test_the_lower_limit_counts(tmp_path: Path, told: str, own: str | None, limit: int | None) -> None:
    """The limit is the environment's or the cgroup's, whichever is lower; what is no number is none."""
    if own is not None:
        (tmp_path / "memory.max").write_text(own)
    cgroup = Cgroup(directory=tmp_path, unified=True)
    assert find_limit({names.ENV_MEMORY_LIMIT: told}, cgroup) == limit


def test_a_cgroup_of_either_version(tmp_path: Path) -> None:
    """Version 1 and 2 tell the same by other names, at the path that the process has or at the root."""
    two, one = tmp_path / "two", tmp_path / "one"
    (two / "pod").mkdir(parents=True)
    (one / "memory").mkdir(parents=True)
    for directory, content in (
        (
            two / "pod",
            {
                "memory.current": "500",
                "memory.max": "1000",
                "memory.stat": "anon 300\ninactive_file 100\nactive_file 50\n",
                "memory.events": "oom 2\noom_kill 3\n",
            },
        ),
        (
            one / "memory",
            {
                "memory.usage_in_bytes": "500",
                "memory.limit_in_bytes": "1000",
                "memory.stat": "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 50\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            },
        ),
    ):
        for name, text in content.items():
            (directory / name).write_text(text)
    (tmp_path / "v2").write_text("0::/pod\n")
    (tmp_path / "v1").write_text("5:memory:/kubepods/elsewhere\n1:name=systemd:/\n0::/\n")
    for root, membership in ((two, "v2"), (one, "v1")):
        found = find_cgroup(root, membership=tmp_path / membership)
        assert found is not None
        assert (found.limit(), found.taken(), found.oom_kills()) == (1000, 350, 3)
    assert find_cgroup(tmp_path, membership=tmp_path / "v2") is None
    assert find_cgroup(tmp_path, membership=tmp_path / "nowhere") is None


def test_a_cgroup_without_files_says_nothing(tmp_path: Path) -> None:
    """Files that are absent or strange are no reason to end."""
    (tmp_path / "memory.stat").write_text("what is this\n\nanon much\n")
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    for unified in (True, False):
        cgroup = Cgroup(directory=tmp_path, unified=unified)
        assert (cgroup.limit(), cgroup.taken(), cgroup.oom_kills()) == (None, None, 0)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=8), st.data())
def test_lines_are_cut_anywhere(told: list[bytes], data: st.DataObject) -> None:
    """Whatever pieces a pipe gives, the lines are what was written."""
    content = b"".join(line + b"\n" for line in told)
    words, heard, start = Words(), [], 0
    while start < len(content):
        end = data.draw(st.integers(start + 1, len(content)))
        heard += words.take(content[start:end])
        start = end
    assert heard == told


def test_a_line_that_is_too_long_is_left_out() -> None:
    """A line beyond the bound costs no memory, and the next one is heard."""
    words = Words()
    for _ in range(MOST_LINE // 65536 + 2):
        assert words.take(b"x" * 65536) == []
    assert words.take(b"x\nwell\n") == [b"well"]
    assert words.take(b"y" * (MOST_LINE + 1) + b"\nwell\n") == [b"well"]


@given(st.binary())
def test_garbage_tells_nothing(line: bytes) -> None:
    """Bytes that are no JSON object with a report are nothing that was told."""
    assert parse_told(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"null",
        b'{"process": 1}',
        b'{"process": {"a": NaN}}',
        b"[" * 100_000,
        b'{"process": ' + b"9" * 5000,
    ],
)
def test_what_looks_like_a_report_and_is_none(line: bytes) -> None:
    """Neither depth nor length nor numbers that JSON has not are a report."""
    assert parse_told(line) is None


def test_a_report_is_told_with_metrics_and_patience() -> None:
    """Metrics and patience are optional, and of the right type or left out."""
    full = parse_told(json.dumps({"process": {"a": 1}, "metrics": "m", "patience": 300}).encode())
    assert full is not None
    assert (full.process, full.metrics, full.patience) == ({"a": 1}, "m", 300.0)
    odd = parse_told(b'{"process": {}, "metrics": 5, "patience": "long"}')
    assert odd is not None
    assert (odd.metrics, odd.patience) == (None, 0.0)
    endless = parse_told(b'{"process": {}, "patience": 1' + b"0" * 400 + b"}")
    assert endless is not None
    assert endless.patience == MOST_PATIENCE
