"""Whatever becomes of the shadow: requests are answered, accounts hold, the mirror comes back by itself."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from greenroom_runtime.contract.flags import Shadow
from greenroom_runtime.contract.report import MirrorReport
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.frame_reader import FrameReader, reserve_port
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags

ROW = dict(CLASSIFIER_ROWS[0])
LARGE = {**ROW, "country": "x" * 4000}
SHADOW = Shadow(version="v4", hundredths=10_000, salt="ml/churn", epoch="v4/v1#1", latency_ratio=2.0)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A pod that mirrors, and where to."""

    pod: ServingProcess
    address: str
    client: httpx2.Client

    @property
    def path(self) -> Path:
        """The Unix socket's file."""
        return Path(self.address.removeprefix("unix:"))

    def ask(self, count: int = 1) -> list[str]:
        """Send requests that are all answered; return their ids."""
        answers = [self.client.post("/predict", json={"features": ROW}) for _ in range(count)]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.headers["X-Request-Id"] for answer in answers]

    def ask_much(self) -> list[str]:
        """Send a batch that takes more than half of the queue and is answered; return its rows' ids."""
        answer = self.client.post("/predict/batch", json={"rows": [LARGE] * 40})
        assert (answer.status_code, answer.json()["errors_total"]) == (200, 0)
        return [f"{answer.headers['X-Request-Id']}/{number}" for number in range(40)]

    def ask_until_stuck(self) -> list[str]:
        """Send requests, all answered, until frames wait and none leaves meanwhile; return their ids."""
        asked: list[str] = []
        while True:
            asked += self.ask_much()
            before = self.accounts()
            asked += self.ask(20)
            after = self.accounts()
            if after.pending and after.sent == before.sent:
                return asked
            assert len(asked) < 10_000, after

    def accounts(self) -> MirrorReport:
        """Return the accounts, which always add up."""
        mirror = self.pod.report().mirror
        assert mirror is not None
        assert mirror.offered == mirror.sampled_out + mirror.sent + mirror.dropped + mirror.pending
        return mirror

    def settled(self) -> MirrorReport:
        """Wait until nothing is on its way."""
        self.pod.wait_until(lambda report: report.mirror is not None and report.mirror.pending == 0)
        return self.accounts()

    def ask_until_mirrored(self, reader: FrameReader) -> None:
        """Send requests, all answered, until one arrives at this reader."""
        asked: set[str] = set()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            asked.update(self.ask())
            if any(frame.id in asked for frame in reader.frames()):
                return
        pytest.fail(f"nothing has arrived: {self.accounts()}")


@contextmanager
def way(root: Path, kind: str) -> Iterator[Way]:
    """Run a pod that mirrors to this kind of address; its queue is small, so that it can be filled."""
    write_classifier(root / "source", "v1")
    with ExitStack() as stack:
        address = f"unix:{root / 'frames.sock'}"
        if kind == "tcp":
            port = stack.enter_context(reserve_port()).getsockname()[1]
            address = f"tcp:127.0.0.1:{port}"
        pod = stack.enter_context(
            ServingProcess(
                root / "pod",
                source_uri=(root / "source").as_uri(),
                shadow={"address": address, "queue_bytes": 256 * 1024},
            )
        )
        pod.flags.write(flags("v1", shadow=SHADOW))
        pod.wait_ready("v1")
        client = stack.enter_context(httpx2.Client(base_url=pod.url, timeout=30))
        yield Way(pod=pod, address=address, client=client)


@pytest.fixture(scope="module", params=["unix", "tcp"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Give a pod for each kind of address."""
    with way(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture(scope="module")
def unix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Give a pod that mirrors over a Unix socket."""
    with way(tmp_path_factory.mktemp("unix"), "unix") as running:
        yield running


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Give a pod that mirrors over TCP."""
    with way(tmp_path_factory.mktemp("tcp"), "tcp") as running:
        yield running


def test_without_a_reader_frames_are_dropped(either: Way) -> None:
    """Nobody has ever listened: every request is answered, every frame dropped, and why is told."""
    either.path.unlink(missing_ok=True)
    before = either.settled()
    either.ask(20)
    after = either.settled()
    assert (after.offered - before.offered, after.dropped - before.dropped) == (20, 20)
    assert after.error.startswith(either.address)
    assert "no shadow listens there" in after.error


def test_each_answer_arrives_once_and_in_order(either: Way) -> None:
    """With a reader that keeps up, what is answered from then on arrives, and nothing else."""
    with FrameReader(either.address) as reader:
        either.ask_until_mirrored(reader)
        before = either.settled()
        asked = either.ask(200)
        frames = reader.wait_for(lambda frames: [frame.id for frame in frames[-200:]] == asked)
        after = either.settled()
        assert (after.sent - before.sent, after.dropped) == (200, before.dropped)
        assert len(frames) == len({frame.id for frame in frames})


def test_a_reader_that_hangs_fills_a_bounded_queue(either: Way) -> None:
    """While it is stopped requests are answered and the newest frames dropped; what was kept arrives then."""
    with FrameReader(either.address) as reader:
        either.ask_until_mirrored(reader)
        before = either.settled()
        reader.stop()
        asked = either.ask_until_stuck()
        while (hung := either.accounts()).dropped == before.dropped:
            asked += either.ask_much()
            assert len(asked) < 10_000, hung
        asked += either.ask(20)
        hung = either.accounts()
        assert 0 < hung.pending < 256
        assert "more slowly than requests come" in hung.error
        reader.go_on()
        after = either.settled()
        assert after.dropped == hung.dropped
        sent = after.sent - before.sent
        assert sent + after.dropped - before.dropped == len(asked)
        reader.wait_for(lambda frames: sum(frame.id in asked for frame in frames) == sent)
        either.ask_until_mirrored(reader)


def test_a_killed_reader_is_found_again(either: Way) -> None:
    """After a reader was killed frames are dropped until the next one listens, which then gets them."""
    with FrameReader(either.address) as reader:
        either.ask_until_mirrored(reader)
        before = either.settled()
        reader.kill()
        for _ in range(200):
            either.ask(5)
            if either.settled().dropped > before.dropped:
                break
        assert either.settled().dropped > before.dropped
        assert either.accounts().error.startswith(either.address)
    with FrameReader(either.address) as reader:
        either.ask_until_mirrored(reader)
        assert either.accounts().error == ""  # what is mended is no trouble for ten seconds more


def test_readers_that_come_and_go_fail_no_request(either: Way) -> None:
    """Under load from several clients readers are killed and started again: all requests are answered."""
    ended = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        with httpx2.Client(base_url=either.pod.url, timeout=30) as client:
            while not ended.is_set():
                statuses.append(client.post("/predict", json={"features": LARGE}).status_code)

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            with FrameReader(either.address) as reader:
                reader.wait_for(lambda frames: len(frames) > 20)
                reader.stop()
                seen = len(statuses)
                either.pod.wait_until(lambda _, seen=seen: len(statuses) > seen + 50)  # type: ignore[misc]
                either.accounts()
    finally:
        ended.set()
        for client in clients:
            client.join()
    assert set(statuses) == {200}
    assert either.settled().sent > 60


def test_a_slow_reader_gets_what_it_can_take(either: Way) -> None:
    """Frames that it has no time for are dropped; those that are sent arrive, in order."""
    with FrameReader(either.address, pause=0.2) as reader:
        either.ask_until_mirrored(reader)
        before = either.settled()
        asked: list[str] = []
        while either.accounts().dropped == before.dropped:
            asked += either.ask_much()
            assert len(asked) < 10_000
        after = either.settled()
        sent = after.sent - before.sent
        frames = reader.wait_for(lambda frames: sum(frame.id in asked for frame in frames) == sent)
        arrived = [frame.id for frame in frames if frame.id in asked]
        assert arrived == [each for each in asked if each in arrived]


def test_a_stale_file_is_told(unix: Way) -> None:
    """A socket's file whose reader has ended refuses: frames are dropped until the next reader is there."""
    unix.path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ended:
        ended.bind(str(unix.path))
    unix.pod.wait_until(lambda _: "has ended" in (unix.ask() and unix.settled().error))
    with FrameReader(unix.address) as reader:
        unix.ask_until_mirrored(reader)


def test_a_file_made_anew_is_found_although_its_old_reader_lives(unix: Way) -> None:
    """Who was connected to the old one goes on to the new one, though nothing has failed."""
    with FrameReader(unix.address) as old:
        unix.ask_until_mirrored(old)
        unix.path.unlink()
        asked = unix.ask(3)
        old.wait_for(lambda frames: {frame.id for frame in frames} >= set(asked))
        with FrameReader(unix.address) as new:
            unix.ask_until_mirrored(new)
            assert old.process.poll() is None


def test_a_full_backlog_holds_nobody_up(either: Way) -> None:
    """Who listens and never accepts is no shadow: frames are dropped, and the next reader gets them."""
    kind, _, place = either.address.partition(":")
    with ExitStack() as stack:
        if kind == "unix":
            either.path.unlink(missing_ok=True)
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listening.bind(place)
            end: str | tuple[str, int] = place
        else:
            listening = stack.enter_context(socket.socket())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            host, _, port = place.partition(":")
            end = (host, int(port))
            listening.bind(end)
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket(listening.family, listening.type))
            waiting.setblocking(False)
            waiting.connect_ex(end)
        before = either.settled()
        either.ask(50)
        # Over TCP an attempt takes its time until it has failed.
        words = "busy or hangs" if kind == "unix" else "timed out"
        either.pod.wait_until(lambda _: words in (either.ask() and either.accounts().error))
        assert either.settled().dropped > before.dropped
    either.path.unlink(missing_ok=True)
    with FrameReader(either.address) as reader:
        either.ask_until_mirrored(reader)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp:nowhere.invalid:8083", "tcp:nowhere.invalid:8083: "),
        (f"tcp:{'x' * 64}.svc:8083", "UnicodeE"),
        ("http://shadow", "neither unix:PATH nor tcp:HOST:PORT"),
        ("tcp:shadow:", "neither unix:PATH nor tcp:HOST:PORT"),
        ("unix:", "neither unix:PATH nor tcp:HOST:PORT"),
        (f"unix:/{'x' * 107}", "at most 107 bytes"),
    ],
    ids=lambda value: value[:24],
)
def test_an_address_that_leads_nowhere_harms_nobody(tmp_path: Path, address: str, words: str) -> None:
    """The pod serves, and says what is wrong with the address."""
    write_classifier(tmp_path / "source", "v1")
    with ServingProcess(
        tmp_path / "pod", source_uri=(tmp_path / "source").as_uri(), shadow={"address": address}
    ) as pod:
        pod.flags.write(flags("v1", shadow=SHADOW))
        pod.wait_ready("v1")
        assert pod.predict(ROW).status_code == 200
        report = pod.wait_until(lambda report: report.mirror is not None and report.mirror.pending == 0)
        assert report.mirror is not None
        assert (report.mirror.offered, report.mirror.dropped) == (1, 1)
        assert words in report.mirror.error
        assert pod.stop() == 0


def test_at_the_end_what_waits_is_sent(tmp_path: Path) -> None:
    """A pod that is told to end sends what it has answered until then, and its last accounts add up."""
    with way(tmp_path, "unix") as ending, FrameReader(ending.address) as reader:
        ending.ask_until_mirrored(reader)
        asked = ending.ask(30)
        assert ending.pod.stop() == 0
        reader.wait_for(lambda frames: [frame.id for frame in frames[-30:]] == asked)
        last = ending.pod.wait_for_log("mirror")
        assert last["offered"] == last["sent"] + last["dropped"]
        assert last["pending"] == 0


def test_at_the_end_a_reader_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """What it does not take in time counts as dropped."""
    with way(tmp_path, "unix") as ending, FrameReader(ending.address) as reader:
        ending.ask_until_mirrored(reader)
        reader.stop()
        ending.ask_until_stuck()
        dropped = ending.accounts().dropped
        assert ending.pod.stop() == 0
        last = ending.pod.wait_for_log("mirror")
        assert last["dropped"] > dropped
        assert last["offered"] == last["sent"] + last["dropped"]
