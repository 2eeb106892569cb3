"""What is mirrored: which answers, with what, and accounts that hold whatever happens in between."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagStore, Rollout, Rule, Shadow
from greenroom_runtime.contract.report import MirrorReport, VersionState
from greenroom_runtime.models.session import Prediction
from greenroom_runtime.routing.router import find_place
from greenroom_runtime.shadow.frame import MAX_PACKET, Frame, decode_frames, encode_frame
from greenroom_runtime.shadow.link import LinkError, TcpLink, UnixLink
from greenroom_runtime.shadow.mirror import Mirror
from greenroom_runtime.shadow.target import Target, compile_target
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    REGRESSOR_ROWS,
    classify,
    fragile_graph,
    regress,
    write_classifier,
    write_regressor,
)
from tests.support.frame_reader import FrameReader
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags
from tests.support.upstream import feature_service

SHADOW = Shadow(version="v4", hundredths=10_000, salt="ml/churn", epoch="v4/v1#1", latency_ratio=2.0)
ROW = dict(REGRESSOR_ROWS[0])
FATAL = {**ROW, "x2": 1000.0}


class Switched:
    """A link whose faults a test chooses."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        """The next ones: ``away`` fails an attempt, ``waits`` is not connected yet, ``full`` has no room,
        ``half`` takes half of what it is given, ``lost`` ends the connection; then all is well."""
        self.taken = bytearray()
        """Of the packet that is on its way."""
        self.arrived: list[Frame] = []

    def connected(self) -> bool:
        """Connect, unless a fault is due."""
        if self.faults[:1] == ["away"]:
            self.faults.pop(0)
            raise LinkError("away")
        if self.faults[:1] == ["waits"]:
            self.faults.pop(0)
            return False
        return True

    def send(self, packet: memoryview, /) -> int:
        """Take all of it, unless a fault is due."""
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            self.taken.clear()
            raise LinkError("lost")
        if fault == "full":
            return 0
        count = len(packet) // 2 if fault == "half" else len(packet)
        self.taken += packet[:count]
        if count == len(packet):
            assert len(self.taken) <= MAX_PACKET
            self.arrived += decode_frames(bytes(self.taken))
            self.taken.clear()
        return count

    def close(self) -> None:
        """Forget what was taken in part."""
        self.taken.clear()


@dataclass
class Stage:
    """A mirror whose turns and clock a test moves."""

    link: Switched = field(default_factory=Switched)
    due: list[Callable[[], None]] = field(default_factory=list)
    now: float = 0.0
    queue_bytes: int = 1 << 20
    queue_frames: int = 50

    def __post_init__(self) -> None:
        """Begin with a shadow."""
        self.mirror = Mirror(
            self.link,
            queue_bytes=self.queue_bytes,
            queue_frames=self.queue_frames,
            schedule=lambda _, turn: self.due.append(turn),
            clock=lambda: self.now,
            wall_clock=lambda: 17.0,
        )
        self.target: Target | None = None
        self.obey(SHADOW)

    def obey(self, shadow: Shadow | None) -> None:
        """Take another flag store; who has begun before it goes on with the old target."""
        found = self.mirror.obey(FlagStore(production="v1", resident=("v1",), shadow=shadow))
        self.target = found if found is not None else self.target

    def offer(self, request_id: str, **changes: Any) -> None:
        """Offer an answer."""
        assert self.target is not None
        answer: dict[str, Any] = {
            "key": "user-1",
            "context": {},
            "version": "v1",
            "features": dict(ROW),
            "prediction": Prediction(1.5, None),
            "classes": None,
            "error": "",
            "seconds": 0.001,
            "size": 100,
        }
        self.mirror.offer(self.target, request_id=request_id, **(answer | changes))

    def turn(self) -> None:
        """Let the loop come to what is due."""
        turns, self.due[:] = list(self.due), []
        for each in turns:
            each()

    def check(self) -> MirrorReport:
        """Assert that the accounts add up, and that a turn is due while anything waits."""
        accounts = self.mirror.accounts()
        assert accounts.offered == accounts.sampled_out + accounts.sent + accounts.dropped + accounts.pending
        assert accounts.sent == len(self.link.arrived)
        assert len(self.due) <= 1
        assert self.due or not accounts.pending
        return accounts


FEATURES = st.sampled_from(
    [
        ROW,
        {},
        {"text": "x" * 30_000},
        {"text": "x" * 70_000},
        {"half": "\ud800"},
        {"huge": 2**70},
        {"list": [1]},
        {"nan": math.nan},
    ]
)
EVENTS = st.one_of(
    st.tuples(st.just("offer"), FEATURES),
    st.tuples(st.just("turn"), st.just(None)),
    st.tuples(st.just("fault"), st.sampled_from(["away", "waits", "full", "half", "lost"])),
    st.tuples(
        st.just("flags"),
        st.sampled_from([None, SHADOW, replace(SHADOW, hundredths=5000), replace(SHADOW, epoch="v4/v1#2")]),
    ),
)


@given(events=st.lists(EVENTS, max_size=80), queue_bytes=st.sampled_from([2_000, 100_000, 1 << 20]))
def test_accounts_hold_whatever_happens_in_between(events: list[tuple[str, Any]], queue_bytes: int) -> None:
    """Offers, turns, faults and flag stores in any order: each answer is in exactly one account."""
    stage = Stage(queue_bytes=queue_bytes)
    offered = 0
    for kind, what in events:
        if kind == "offer":
            stage.offer(f"r{offered}", features=what, size=len(str(what)))
            offered += 1
        elif kind == "turn":
            stage.turn()
        elif kind == "fault":
            stage.link.faults.append(what)
        else:
            stage.obey(what)
        assert stage.check().offered == offered
    arrived = [int(frame.id[1:]) for frame in stage.link.arrived]
    assert arrived == sorted(set(arrived))
    for _ in range(2 * len(events) + 2):
        stage.turn()
    assert stage.check().pending == 0


@given(events=st.lists(EVENTS, max_size=30))
async def test_after_the_end_nothing_is_on_its_way(events: list[tuple[str, Any]]) -> None:
    """Whatever went before, the end leaves no frame uncounted, and later answers are dropped."""
    stage = Stage()
    for number, (kind, what) in enumerate(events):
        if kind == "offer":
            stage.offer(f"r{number}", features=what)
        elif kind == "fault":
            stage.link.faults.append(what)
    await stage.mirror.close(0.0)
    stage.turn()
    before = stage.mirror.accounts()
    assert before.pending == 0
    stage.offer("late")
    assert stage.mirror.dropped == before.dropped + 1


def test_a_burst_leaves_the_loop_to_others() -> None:
    """A turn ends when its time is over, and what is left is sent by the turns after it."""
    stage = Stage(queue_frames=5000, queue_bytes=1 << 26)
    for number in range(3000):
        stage.offer(f"r{number}")
    clock = iter(range(10**9))
    stage.mirror._clock = lambda: next(clock) * 20e-6
    turns = 0
    while stage.mirror.pending:
        before = stage.mirror.sent
        stage.turn()
        assert 0 < stage.mirror.sent - before <= 20
        turns += 1
    assert turns >= 150
    assert [frame.id for frame in stage.link.arrived] == [f"r{number}" for number in range(3000)]


def test_of_a_full_queue_the_newest_is_dropped() -> None:
    """By number and by size: what waits stays, and the reason is told until ten seconds after the last."""
    stage = Stage(queue_frames=3)
    for number in range(5):
        stage.offer(f"r{number}")
    stage.turn()
    assert [frame.id for frame in stage.link.arrived] == ["r0", "r1", "r2"]
    assert "further ones are dropped; give it more CPU" in stage.check().error
    stage.now = 9.9
    assert stage.check().error
    stage.now = 10.1
    assert stage.check().error == ""
    stage = Stage(queue_bytes=3000)
    for size in (100, 5000, 100):
        stage.offer(f"of {size}", size=size)
    stage.turn()
    assert [frame.id for frame in stage.link.arrived] == ["of 100", "of 100"]


def test_what_no_frame_can_hold_is_dropped_alone() -> None:
    """Others of the same turn arrive; a value that production has not looked at is left out."""
    stage = Stage()
    for number, features in enumerate([ROW, {"text": "x" * MAX_PACKET}, {"half": "\ud800"}, {"list": [[]]}]):
        stage.offer(f"r{number}", features=features)
    stage.turn()
    assert [(frame.id, frame.features) for frame in stage.link.arrived] == [("r0", ROW), ("r3", {})]
    accounts = stage.check()
    assert accounts.dropped == 2
    assert "a frame cannot be written" in accounts.error


def test_a_defect_fails_nobody() -> None:
    """Whatever breaks on the way, the request path goes on and the frames count as dropped."""
    stage = Stage()
    stage.offer("r1", context=None, features=None)
    assert stage.check().dropped == 1
    stage.offer("r2")
    stage.link.send = lambda _: 1 // 0  # type: ignore[method-assign]
    stage.turn()
    assert stage.check().dropped == 2


async def test_a_connection_that_ends_within_a_packet_loses_that_packet() -> None:
    """Over TCP: a packet that was taken in part counts as dropped, and none of it goes to the next reader."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = listening.getsockname()[1]
        mirror = Mirror(TcpLink("127.0.0.1", port), queue_bytes=1 << 26)
        target = mirror.obey(flags("v1", shadow=SHADOW))
        assert target is not None
        answer = _answer("before")
        whole = len(
            encode_frame(
                Frame(
                    "v4/v1#1",
                    "before",
                    "before",
                    1e9,
                    "v1",
                    answer["features"],
                    "yes",
                    [0.25, 0.75],
                    ["no", "yes"],
                    "",
                    0.001,
                    [],
                )
            )
        )
        await _offer_until(mirror, target, lambda: len(mirror._packet) % whole > 0)
        torn = mirror.sent
        first, _ = listening.accept()
        first.close()
        await _until(lambda: mirror.dropped > 0)
        mirror._drop_all()
        mirror.offer(target, **_answer("after"))
        await _until(lambda: mirror.sent > torn)
        second, _ = listening.accept()
        with second:
            frames = list(decode_frames(second.recv(whole - 2, socket.MSG_WAITALL)))
        assert [frame.id for frame in frames] == ["after"]
        await mirror.close(1.0)
        assert mirror.offered == mirror.sent + mirror.dropped


def _answer(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "key": "",
        "context": {},
        "version": "v1",
        "features": {"text": "x" * 20_000},
        "prediction": Prediction("yes", [0.25, 0.75]),
        "classes": ("no", "yes"),
        "error": "",
        "seconds": 0.001,
        "size": 20_000,
    }


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 real sockets tell nobody
            await asyncio.sleep(0.005)


async def _offer_until(mirror: Mirror, target: Target, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            if mirror.pending < 100:
                mirror.offer(target, **_answer("before"))
            await asyncio.sleep(0.002)


def test_an_attempt_is_made_once_a_second(tmp_path: Path) -> None:
    """However often it is asked: a failed attempt costs a system call, and there is one a second."""
    now = 100.0
    link = UnixLink(str(tmp_path / "none"), clock=lambda: now)
    failures = 0
    for _ in range(40):
        try:
            assert not link.connected()
        except LinkError:
            failures += 1
        now += 0.1
    assert failures == 4


def test_a_target_is_as_the_router_decides() -> None:
    """A share by the hash of the request's id; segments by the router's spellings, the key by its name."""
    store = flags(
        "v1",
        "v2",
        rollout=Rollout(version="v2", hundredths=0, salt="ml/churn", key="account"),
        shadow=replace(
            SHADOW,
            hundredths=2500,
            segments=(("country", "NO"), ("account", "17"), ("member", "true"), ("user_id", "ann")),
        ),
    )
    target = compile_target(store)
    assert target is not None
    ids = [f"id-{number}" for number in range(4000)]
    taken = [each for each in ids if target.takes(each)]
    assert taken == [each for each in ids if find_place("ml/churn:shadow:v4:", each) < 2500]
    assert 850 < len(taken) < 1150
    assert target.segments_of("17", {"country": ["SE", "NO"], "member": True}) == [0, 1, 2]
    assert target.segments_of("ann", {"account": 17, "user_id": "ann", "country": {"a": "NO"}}) == [3]
    assert target.segments_of("", {}) == []
    assert compile_target(flags("v1")) is None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A pod and its reader."""

    pod: ServingProcess
    reader: FrameReader

    def begin(self, **changes: Any) -> None:
        """Publish a flag store with a shadow, and wait until it is obeyed."""
        others = [changes["rollout"].version] if "rollout" in changes else []
        store = flags("v1", *others, **({"shadow": SHADOW} | changes))
        self.pod.flags.write(store)
        self.pod.wait_until(lambda report: report.revision == store.revision and report.ready)
        for version in others:
            self.pod.wait_state(version, VersionState.READY)

    def post(self, path: str, body: Mapping[str, Any], *, request_id: str) -> httpx2.Response:
        """Ask under this id."""
        headers = {names.HEADER_REQUEST_ID: request_id}
        return http.post(self.pod.url + path, json=body, headers=headers)

    def predict(self, features: Mapping[str, Any], *, request_id: str, **request: Any) -> httpx2.Response:
        """Ask about one row under this id."""
        return self.post("/predict", {"features": features, **request}, request_id=request_id)

    def frames(self, start: str) -> list[Frame]:
        """Return the frames of requests whose ids begin so, once all have arrived that were sent."""
        report = self.pod.wait_until(lambda report: report.mirror is not None and not report.mirror.pending)
        assert report.mirror is not None
        assert report.mirror.dropped == 0
        sent = report.mirror.sent
        frames = self.reader.wait_for(lambda frames: len(frames) == sent)
        return [frame for frame in frames if frame.id.startswith(start)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Serve v1, which fails where x2 is 100 or more; v2 answers alike, v3 takes other features."""
    root = tmp_path_factory.mktemp("mirror")
    write_regressor(root / "source", "v1", model=fragile_graph())
    write_regressor(root / "source", "v2")
    write_classifier(root / "source", "v3")
    address = f"unix:{root / 'frames.sock'}"
    with (
        FrameReader(address) as reader,
        ServingProcess(
            root / "pod", source_uri=(root / "source").as_uri(), shadow={"address": address}
        ) as pod,
    ):
        running = Scene(pod=pod, reader=reader)
        running.begin()
        yield running


def test_a_frame_is_what_was_asked_and_answered(scene: Scene) -> None:
    """Features, answer, version, whose it is, when it was, and how long the model took."""
    scene.begin()
    answer = scene.predict(ROW, request_id="plain", user_id="ann")
    (frame,) = scene.frames("plain")
    assert (frame.epoch, frame.id, frame.key, frame.version) == ("v4/v1#1", "plain", "ann", "v1")
    assert frame.features == ROW
    assert frame.prediction == answer.json()["prediction"] == regress(ROW, 0.0)
    assert (frame.probabilities, frame.classes, frame.error, frame.segments) == (None, None, "", [])
    assert 0 < frame.seconds < 60
    assert frame.time > 1.7e9


def test_who_has_no_key_is_the_request_itself(scene: Scene) -> None:
    """One trial for each request, by its id; of a batch by the row's own."""
    scene.begin()
    scene.predict(ROW, request_id="nobody")
    scene.post("/predict/batch", {"rows": [ROW, ROW], "user_ids": ["ann", None]}, request_id="nobodies")
    assert [frame.key for frame in scene.frames("nobody")] == ["nobody"]
    assert [frame.key for frame in scene.frames("nobodies")] == ["ann", "nobodies/1"]


def test_a_failure_of_the_model_is_mirrored(scene: Scene) -> None:
    """The shadow may answer what production cannot: the frame says what production's model failed with."""
    scene.begin()
    assert scene.predict(FATAL, request_id="fatal").status_code == 500
    (frame,) = scene.frames("fatal")
    assert (frame.features, frame.prediction, frame.probabilities) == (FATAL, None, None)
    assert frame.error.startswith("version v1 failed on these features: ")


def test_what_no_model_saw_is_not_mirrored(scene: Scene) -> None:
    """Bodies that are none, features that do not fit, versions that nobody is routed to."""
    scene.begin()
    before = scene.pod.report().mirror
    assert scene.predict({}, request_id="refused").status_code == 422
    assert scene.predict({**ROW, "x1": "text"}, request_id="refused").status_code == 422
    assert scene.post("/predict", {"rows": []}, request_id="refused").status_code == 422
    assert scene.post("/v2/models/churn/versions/v9/infer", {}, request_id="refused").status_code == 404
    assert scene.pod.report().mirror == before


def test_rows_of_a_batch_are_mirrored_one_by_one(scene: Scene) -> None:
    """Each that a model saw, in order, under its own id and with its share of the run's time."""
    scene.begin()
    rows = [ROW, {}, FATAL, {**ROW, "x1": 5.0}]
    answer = scene.post("/predict/batch", {"rows": rows}, request_id="batch").json()
    frames = scene.frames("batch")
    assert [frame.id for frame in frames] == ["batch/0", "batch/2", "batch/3"]
    assert [frame.features for frame in frames] == [rows[0], rows[2], rows[3]]
    assert frames[0].prediction == answer["predictions"][0]["prediction"]
    assert frames[1].error
    assert len({frame.seconds for frame in frames}) == 1


def test_a_large_batch_arrives_whole(scene: Scene) -> None:
    """In many packets, while other requests are answered."""
    scene.begin()
    rows = [{**ROW, "x1": float(number)} for number in range(3000)]
    assert scene.post("/predict/batch", {"rows": rows}, request_id="large").status_code == 200
    assert [frame.features["x1"] for frame in scene.frames("large")] == [row["x1"] for row in rows]


def infer(scene: Scene, rows: list[dict[str, Any]], *, request_id: str, version: str = "") -> int:
    """Ask by the Open Inference Protocol; return the status."""
    kinds = {"x1": "FP64", "x2": "FP64", "member": "BOOL"}
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name, kind in kinds.items()
    ]
    path = f"/v2/models/churn{version}/infer"
    return scene.post(path, {"inputs": inputs}, request_id=request_id).status_code


def test_rows_of_an_inference_request_are_mirrored(scene: Scene) -> None:
    """One row under the request's id, several under their own; also where the path names production."""
    scene.begin()
    assert infer(scene, [ROW], request_id="v2-one") == 200
    assert infer(scene, [ROW, ROW], request_id="v2-two", version="/versions/v1") == 200
    assert [(frame.id, frame.features) for frame in scene.frames("v2-")] == [
        ("v2-one", ROW),
        ("v2-two/0", ROW),
        ("v2-two/1", ROW),
    ]


def test_rows_that_nobody_receives_are_not_mirrored(scene: Scene) -> None:
    """Where one row fails and all are refused, only what the model failed on is an outcome."""
    scene.begin()
    assert infer(scene, [ROW, FATAL], request_id="together") == 500
    assert [(frame.id, bool(frame.error)) for frame in scene.frames("together")] == [("together/1", True)]


def test_answers_of_a_rollout_are_not_mirrored(scene: Scene) -> None:
    """Only production's are compared: those of users who have another version are not even offered."""
    rules = (Rule(name="beta", attribute="cohorts", values=("beta",)),)
    rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", key="account", rules=rules)
    scene.begin(rollout=rollout)
    before = scene.pod.report().mirror
    beta = {"cohorts": ["beta"]}
    told = scene.predict(ROW, request_id="beta", context=beta)
    assert told.headers[names.HEADER_VERSION] == "v2"
    assert infer(scene, [ROW], request_id="beta-path", version="/versions/v2") == 200
    assert scene.pod.report().mirror == before
    scene.predict(ROW, request_id="sticky", user_id="ann", context={"account": 17})
    assert [frame.key for frame in scene.frames("sticky")] == ["17"]


def test_a_fallback_is_productions_answer(scene: Scene) -> None:
    """Where the rollout's version cannot answer its user, production does, and that is mirrored."""
    rules = (Rule(name="beta", attribute="cohorts", values=("beta",)),)
    scene.begin(rollout=Rollout(version="v3", hundredths=0, salt="ml/churn", rules=rules))
    extra = {**ROW, "visits": [1, 2], "country": "NO"}
    told = scene.predict(extra, request_id="fallback", user_id="ann", context={"cohorts": "beta"})
    assert (told.status_code, told.headers[names.HEADER_REASON]) == (200, "fallback")
    (frame,) = scene.frames("fallback")
    assert (frame.version, frame.key) == ("v1", "ann")
    assert frame.features == {**ROW, "country": "NO"}, "what no version could take is left out"


def test_a_share_is_chosen_by_the_requests_id(scene: Scene) -> None:
    """So each pod decides alike, and who asks twice is mirrored twice or not at all."""
    shadow = replace(SHADOW, hundredths=4000)
    scene.begin(shadow=shadow)
    before = scene.pod.report().mirror
    assert before is not None
    ids = [f"share-{number}" for number in range(25)]
    for each in (*ids, *ids):
        scene.predict(ROW, request_id=each)
    rows = [ROW] * 40
    scene.post("/predict/batch", {"rows": rows}, request_id="share")
    wanted = [*ids, *ids, *(f"share/{number}" for number in range(40))]
    taken = [each for each in wanted if find_place(shadow.bucket_start, each) < 4000]
    assert [frame.id for frame in scene.frames("share")] == taken
    after = scene.pod.report().mirror
    assert after is not None
    assert after.sampled_out - before.sampled_out == len(wanted) - len(taken)


def test_segments_are_told(scene: Scene) -> None:
    """By place in the flag store's list, for single rows and for those of batches."""
    scene.begin(shadow=replace(SHADOW, segments=(("country", "NO"), ("user_id", "ann"))))
    scene.predict(ROW, request_id="segment-1", user_id="ann", context={"country": "SE"})
    body = {"rows": [ROW, ROW], "user_ids": ["ann", "bob"], "context": {"country": ["NO", "SE"]}}
    scene.post("/predict/batch", body, request_id="segment-2")
    assert [frame.segments for frame in scene.frames("segment")] == [[1], [0, 1], [0]]


def test_without_a_shadow_nothing_is_mirrored(scene: Scene) -> None:
    """A flag store may take the shadow away and bring another: frames say by which one they came."""
    scene.begin()
    scene.predict(ROW, request_id="come-1")
    arrived = len(scene.frames(""))
    scene.begin(shadow=None)
    scene.predict(ROW, request_id="come-2")
    assert scene.pod.report().mirror is None
    scene.begin(shadow=replace(SHADOW, epoch="v4/v1#2"))
    scene.predict(ROW, request_id="come-3")
    assert [(frame.id, frame.epoch) for frame in scene.frames("come")] == [
        ("come-1", "v4/v1#1"),
        ("come-3", "v4/v1#2"),
    ]
    assert len(scene.frames("")) == arrived + 1


def test_metrics_tell_the_accounts(scene: Scene) -> None:
    """The same numbers as the report's, under names of their own."""
    scene.begin()
    scene.predict(ROW, request_id="metrics")
    scene.frames("metrics")
    mirror = scene.pod.report().mirror
    assert mirror is not None
    lines = http.get(scene.pod.admin_url + names.METRICS_PATH).text.splitlines()
    for name in ("offered", "sampled_out", "sent", "dropped"):
        assert f"greenroom_shadow_mirror_{name}_total {float(getattr(mirror, name))}" in lines
    assert "greenroom_shadow_mirror_pending 0.0" in lines


def test_fetched_features_are_in_the_frame(tmp_path: Path) -> None:
    """The shadow fetches nothing: it gets what production's model was given, labels and all."""
    whole = dict(CLASSIFIER_ROWS[0])
    write_classifier(tmp_path / "source", "v1")
    address = f"unix:{tmp_path / 'frames.sock'}"
    with (
        feature_service() as service,
        FrameReader(address) as reader,
        ServingProcess(
            tmp_path / "pod",
            source_uri=(tmp_path / "source").as_uri(),
            shadow={"address": address},
            features={"compute": {"url": f"{service.url}/one/{{entity}}", "timeout_seconds": 10.0}},
        ) as pod,
    ):
        service.features["ann"] = {"age": whole["age"], "income": whole["income"]}
        scene = Scene(pod=pod, reader=reader)
        scene.begin()
        sent = {"visits": whole["visits"], "country": whole["country"]}
        assert scene.predict(sent, request_id="fetched", user_id="ann").status_code == 200
        service.status = 500
        assert scene.predict(sent, request_id="unavailable", user_id="bob").status_code == 503
        (frame,) = scene.frames("")
        label, probabilities = classify(whole, 0.0)
        assert (frame.features, frame.prediction, frame.classes) == (whole, label, ["no", "yes"])
        assert frame.probabilities == pytest.approx(probabilities, abs=1e-6)
        large = {**whole, "country": "x" * MAX_PACKET}
        assert scene.predict(large, request_id="too-large").status_code == 200
        report = pod.wait_until(lambda report: report.mirror is not None and not report.mirror.pending)
        assert report.mirror is not None
        assert report.mirror.dropped == 1
        assert f"larger than a packet of {MAX_PACKET}" in report.mirror.error
