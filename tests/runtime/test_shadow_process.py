"""The shadow process, supervised as it is in its container: real models, real sockets, real frames."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom_runtime.contract.bundle import GoldenSample
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import FailureReason, VersionState
from greenroom_runtime.contract.shadow import EndReason, ProcessReport
from greenroom_runtime.shadow.frame import LENGTH_BYTES, MAX_PACKET, encode_frame
from tests.support.bundles import (
    CLASSES,
    CLASSIFIER_ROWS,
    REGRESSOR_ROWS,
    brooding_graph,
    bundle_digest,
    classify,
    fragile_graph,
    hungry_graph,
    regress,
    write_classifier,
    write_regressor,
)
from tests.support.ports import free_port
from tests.support.predictions import lines
from tests.support.shadows import Sender, ShadowPod, frame, shadowing

MIB = 2**20
BEYOND = {"x1": 1.0, "x2": 500.0, "member": True}
"""What the graphs of the tests fail on, each in its way."""
PINNED = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source with v2, whose answers are production's, and others that differ in one thing."""
    place = tmp_path_factory.mktemp("source")
    write_regressor(place, "v2")
    write_regressor(place, "v3", bias=5.0)
    write_regressor(place, "fragile", model=fragile_graph())
    write_regressor(place, "brooding", model=brooding_graph())
    write_regressor(place, "hungry", model=hungry_graph())
    write_classifier(place, "labels")
    golden = [GoldenSample(features=row, prediction=regress(row, 1.0)) for row in REGRESSOR_ROWS]
    write_regressor(place, "liar", golden=golden)
    write_regressor(place, "corrupt")
    (place / "corrupt" / "model.onnx").write_bytes(b"no graph")
    return place


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    """Return what sends to the pod of the test."""
    with Sender(tmp_path / "run" / "frames.sock") as one:
        yield one


def test_answers_that_agree_are_counted(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A shadow that answers as production does agrees, each count is exact, and metrics tell the same."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        told = pod.wait_state("v2", VersionState.READY)
        assert (told.production, told.epoch, told.flags_error) == ("v1", "e1", "")
        assert told.version is not None
        assert told.version.digest == bundle_digest(source / "v2")
        sender.send(*(frame(number) for number in range(100)))
        counts = pod.wait_received(100).counts
        assert (counts.received, counts.compared, counts.disagreed) == (100, 100, 0)
        assert sum(counts.differences) == sum(counts.seconds) == sum(counts.production_seconds) == 100
        pod.wait_for_metric('greenroom_shadow_frames_total{outcome="agreed",version="v2"} 100.0')
        assert pod.supervised.stop() == 0


def test_each_row_has_its_outcome(tmp_path: Path, source: Path, sender: Sender) -> None:
    """Errors of either side, features that are lacking or refused, other kinds and epochs are told apart."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("fragile", segments=(("country", "NO"), ("country", "SE"))))
        pod.wait_state("fragile", VersionState.READY)
        failed: dict[str, Any] = {"prediction": None, "error": "version v1 failed on these features"}
        sender.send(
            frame(0, segments=[1]),
            frame(1, prediction=1000.0, segments=[0, 1]),
            frame(2, features=BEYOND),
            frame(3, features={"x1": 1.0, "x2": 2.0, "member": "yes"}),
            frame(4, **failed),
            frame(5, features=BEYOND, **failed),
            frame(6, features={"x1": 1.0, "x2": 2.0}),
            frame(7, prediction="a label"),
            frame(8, features={**frame(8).features, "more": "than it takes"}),
            frame(9, epoch="e0"),
            frame(10, version="v0"),
        )
        told = pod.wait_received(11)
        counts = told.counts
        assert (counts.compared, counts.disagreed, counts.failed) == (3, 1, 2)
        assert (counts.production_failed, counts.both_failed) == (1, 1)
        assert (counts.not_comparable, counts.stale, counts.unready) == (2, 2, 0)
        assert [(one.compared, one.disagreed) for one in counts.segments] == [(1, 1), (2, 1)]
        assert (told.trials.seen.count, told.trials.failed.count, told.trials.disagreed.count) == (5, 2, 1)


def test_a_classifier_is_compared_by_class(tmp_path: Path, source: Path, sender: Sender) -> None:
    """Labels and probabilities are compared, whatever order production has its classes in."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("labels"))
        pod.wait_state("labels", VersionState.READY)
        row = dict(CLASSIFIER_ROWS[0])
        label, probabilities = classify(row, 0.0)
        turned: dict[str, Any] = {
            "classes": [*reversed(CLASSES)],
            "probabilities": [*reversed(probabilities)],
        }
        other = CLASSES[CLASSES.index(label) - 1]
        sender.send(
            frame(0, features=row, prediction=label, **turned),
            frame(1, features=row, prediction=other, **turned),
            frame(2, features=row, prediction=label, **turned | {"probabilities": [0.5, 0.5]}),
        )
        counts = pod.wait_received(3).counts
        assert (counts.compared, counts.disagreed, counts.missing) == (3, 2, 0)


@pytest.mark.parametrize(
    "case",
    [
        ("nowhere", "", FailureReason.NO_SUCH_VERSION),
        ("corrupt", "", FailureReason.DIGEST_MISMATCH),
        ("v2", PINNED, FailureReason.DIGEST_CHANGED),
        ("liar", "", FailureReason.GOLDEN_MISMATCH),
    ],
)
def test_a_version_that_cannot_be_held_is_told(
    tmp_path: Path, source: Path, sender: Sender, case: tuple[str, str, FailureReason]
) -> None:
    """A version that is missing, corrupt, not the pinned one or proven wrong is Failed; the process lives."""
    version, digest, reason = case
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing(version, digest=digest))
        told = pod.wait_state(version, VersionState.FAILED)
        assert told.version is not None
        assert told.version.failure is not None
        assert told.version.failure.reason is reason
        sender.send(frame())
        assert pod.wait_received(1).counts.unready == 1
        pod.flags.write(shadowing("v3", epoch="e2"))
        pod.wait_state("v3", VersionState.READY)
        report = pod.supervised.report()
        assert report.ends == 0, report.end


def test_a_failed_version_is_tried_again_with_another_attempt(tmp_path: Path, sender: Sender) -> None:
    """A version that was not there is Failed, and once it is there another attempt makes it Ready."""
    place = tmp_path / "source"
    write_regressor(place, "v1")
    with ShadowPod(tmp_path, source=place) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.FAILED)
        write_regressor(place, "v2")
        pod.flags.write(shadowing("v2", attempt="2", epoch="e2"))
        pod.wait_state("v2", VersionState.READY)
        sender.send(frame(epoch="e2"))
        assert pod.wait_received(1).counts.compared == 1


def test_what_is_let_go_of_is_fetched_anew(tmp_path: Path, sender: Sender) -> None:
    """A version that the flag store took away and names again may have other bytes, as a retry wants it."""
    place = tmp_path / "source"
    write_regressor(place, "v2")
    with ShadowPod(tmp_path, source=place) as pod:
        pod.flags.write(shadowing("v2"))
        before = pod.wait_state("v2", VersionState.READY).version
        pod.flags.write(FlagStore(production="v1", resident=("v1",)))
        pod.wait_until(lambda told: told.version is None)
        shutil.rmtree(place / "v2")
        write_regressor(place, "v2", bias=1.0)
        pod.flags.write(shadowing("v2", epoch="e2"))
        after = pod.wait_state("v2", VersionState.READY).version
        assert before is not None
        assert after is not None
        assert before.digest != after.digest
        sender.send(frame(epoch="e2"))
        assert pod.wait_received(1).counts.disagreed == 1


def test_the_flag_store_changes_in_the_middle(tmp_path: Path, source: Path, sender: Sender) -> None:
    """Another version, another epoch and no shadow at all, while frames come: nothing is counted twice."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        sender.send(*(frame(number) for number in range(50)))
        pod.wait_received(50)
        pod.flags.write(shadowing("v3", epoch="e2"))
        told = pod.wait_until(lambda told: told.epoch == "e2")
        assert told.counts.received == 0
        sender.send(frame(1), frame(2, epoch="e2"))
        counts = pod.wait_received(2).counts
        assert counts.stale == 1
        pod.wait_state("v3", VersionState.READY)
        sender.send(frame(3, epoch="e2"))
        assert pod.wait_received(3).counts.disagreed >= 1
        pod.flags.write(FlagStore(production="v1", resident=("v1",)))
        told = pod.wait_until(lambda told: told.epoch == "")
        assert (told.version, told.production, told.counts.received) == (None, "", 0)
        sender.send(frame(4), frame(5, epoch="e2"))
        pod.flags.write(shadowing("v2", epoch="e3"))
        pod.wait_state("v2", VersionState.READY)
        sender.send(frame(6, epoch="e3"))
        assert pod.wait_until(lambda told: told.counts.compared == 1)


def test_a_refused_flag_document_changes_nothing(tmp_path: Path, source: Path, sender: Sender) -> None:
    """What is no flag store is told, and the last good one stays in force."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        pod.flags.write("{")
        pod.wait_until(lambda told: told.flags_error)
        sender.send(frame())
        assert pod.wait_received(1).counts.compared == 1


def test_the_sockets_file_is_made_anew(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A socket whose file was deleted, or replaced by another's, is made anew; the connections live on."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        sender.send(frame(0))
        pod.socket.unlink()
        sender.send(frame(1))
        with Sender(pod.socket) as another:
            another.send(frame(2))
            pod.wait_received(3)
            pod.socket.unlink()
            pod.socket.write_text("another's")
            sender.close()
            sender.send(frame(3))
            another.send(frame(4))
            assert pod.wait_received(5).counts.compared == 5


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",
        b"\xff" * 100,
        b"\x00\x00\x00\x02\xc1\xc1",
        b"\x00\x00\x00\x05hello",
        b"y" * (MAX_PACKET + 1),
    ],
)
def test_garbage_ends_its_connection_alone(
    tmp_path: Path, source: Path, sender: Sender, garbage: bytes
) -> None:
    """What is no frame closes the connection that it came through; what came before it counts."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        sender.connect()
        with Sender(pod.socket) as bad:
            bad.send(frame(0))
            bad.send_bytes(garbage)
            assert bad.connect().recv(1) == b""
        sender.send(frame(1))
        assert pod.wait_received(2).counts.compared == 2
        report = pod.supervised.report()
        assert report.ends == 0, report.end


def test_frames_over_tcp(tmp_path: Path, source: Path) -> None:
    """Pods of the shadow's own take the same frames over TCP, from several senders, cut anywhere."""
    port = free_port()
    with ShadowPod(tmp_path, source=source, address="tcp:shadow:8083", frames_port=port) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        address = ("127.0.0.1", port)
        with Sender(address) as one, Sender(address) as other, Sender(address) as bad:
            content = b"".join(encode_frame(frame(number)) for number in range(40))
            for start in range(0, len(content), 97):
                one.send_bytes(content[start : start + 97])
                if start == 97 * 5:
                    other.send(frame(100), frame(101))
            bad.send_bytes(MAX_PACKET.to_bytes(LENGTH_BYTES, "big"))
            assert bad.connect().recv(1) == b""
            assert pod.wait_received(42).counts.compared == 42


def test_more_than_can_be_kept_waits_in_the_socket(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A flood of packets is taken at the model's own pace, and none that was sent is lost."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        pod.wait_state("v2", VersionState.READY)
        packet = [
            frame(number, features={**frame(number).features, "more": "z" * 3000}) for number in range(15)
        ]
        for _ in range(60):
            sender.send(*packet)
        assert pod.wait_received(900).counts.compared == 900


def test_a_model_that_computes_for_ever_is_ended(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A run without end stops the heart; the next process goes on from what was counted."""
    pace = {"heart": 3.0, "first_heart": 60.0}  # a busy machine is not to be taken for a hang
    with ShadowPod(tmp_path, source=source, row=0.2, pace=pace) as pod:
        pod.flags.write(shadowing("brooding"))
        pod.wait_state("brooding", VersionState.READY)
        sender.send(*(frame(number) for number in range(10)))
        pod.wait_received(10)
        with pod.restarted():
            sender.send(frame(11, features=BEYOND))
            report = pod.supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is EndReason.HUNG
        pod.wait_state("brooding", VersionState.READY)
        sender.close()
        sender.send(frame(12))
        told = pod.wait_received(11)
        assert told.counts.compared == told.trials.seen.count == 11


@pytest.mark.parametrize("megabytes", [4000.0, 1e9])
def test_a_model_that_is_refused_memory_ends_its_process(
    tmp_path: Path, source: Path, sender: Sender, megabytes: float
) -> None:
    """One allocation beyond the limit is refused, told as OutOfMemory, and costs nothing that was counted."""
    with ShadowPod(tmp_path, source=source, limit=400 * MIB) as pod:
        pod.flags.write(shadowing("hungry"))
        pod.wait_state("hungry", VersionState.READY)
        sender.send(frame(0), frame(1))
        pod.wait_received(2)
        sender.send(frame(2, features={"x1": 1.0, "x2": megabytes, "member": True}))
        report = pod.supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is EndReason.OUT_OF_MEMORY
        assert report.process is not None
        assert report.process.counts.compared == 2


def test_a_model_that_takes_ever_more_is_ended(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A model whose memory grows is refused it, or killed, before the container's limit."""
    with ShadowPod(tmp_path, source=source, limit=400 * MIB) as pod:
        pod.flags.write(shadowing("hungry"))
        pod.wait_state("hungry", VersionState.READY)
        try:
            for number in range(60):
                features = {"x1": 1.0, "x2": 10.0 * number, "member": True}
                sender.send(frame(number, features=features))
        except OSError:  # it has ended already
            pass
        report = pod.supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is EndReason.OUT_OF_MEMORY


def test_an_unusable_configuration_is_told_and_tried_again(tmp_path: Path, source: Path) -> None:
    """A process that cannot begin says why, and is started again and again."""
    with ShadowPod(tmp_path, source=source, address="carrier:pigeon") as pod:
        report = pod.supervised.wait_for_end(2)
        assert report.end is not None
        assert "configuration" in report.end.message
        assert "carrier:pigeon" in report.end.message


def test_records_tell_both_answers(tmp_path: Path, source: Path, sender: Sender) -> None:
    """Of each row that the shadow answered there is a record with production's answer and how they differ."""
    log = {"sink": "Files", "percent": 100.0}
    with ShadowPod(tmp_path, source=source, prediction_log=log) as pod:
        pod.flags.write(shadowing("v3", segments=(("country", "NO"),)))
        pod.wait_state("v3", VersionState.READY)
        sender.send(frame(0, segments=[0]), frame(1, key="r1", prediction=regress(frame(1).features, 5.0)))
        pod.wait_received(2)
        assert pod.supervised.stop() == 0
        first, second = lines(pod.predictions)
        assert (first["id"], first["role"], first["version"], first["reason"]) == (
            "r0",
            "shadow",
            "v3",
            "shadow",
        )
        assert first["features"] is None
        assert first["entity"] == "user-0"
        assert second["entity"] == ""
        compared = first["comparison"]
        assert compared.pop("difference") == pytest.approx(5.0)
        assert compared == {
            "version": "v1",
            "prediction": frame(0).prediction,
            "probabilities": None,
            "latency_ms": 500.0,
            "outcome": "disagreed",
            "segments": ["country=NO"],
        }
        assert second["comparison"]["outcome"] == "agreed"
        assert all("-shadow-" in path.name for path in pod.predictions.glob("*.jsonl"))


def test_a_share_is_recorded_and_all_that_disagrees(tmp_path: Path, source: Path, sender: Sender) -> None:
    """Of what agrees a share is recorded, by the request's id; of what does not, all."""
    log = {"sink": "Files", "percent": 0.0}
    with ShadowPod(tmp_path, source=source, prediction_log=log) as pod:
        pod.flags.write(shadowing("fragile"))
        pod.wait_state("fragile", VersionState.READY)
        sender.send(frame(0), frame(1, prediction=7.5), frame(2, features=BEYOND))
        report = pod.wait_received(3).prediction_log
        assert report is not None
        assert report.sampled_out == 1
        assert pod.supervised.stop() == 0
        assert [line["comparison"]["outcome"] for line in lines(pod.predictions)] == ["disagreed", "failed"]


def test_counts_survive_a_process_that_is_killed(tmp_path: Path, source: Path, sender: Sender) -> None:
    """What was told outlives the process, users' trials and segments included."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v3", segments=(("country", "NO"),)))
        pod.wait_state("v3", VersionState.READY)
        sender.send(*(frame(number, segments=[0]) for number in range(20)))
        before = pod.wait_received(20)
        with pod.restarted():
            pod.kill_process()
        assert _numbers(pod.told()) == _numbers(before)
        sender.close()
        pod.wait_state("v3", VersionState.READY)
        sender.send(frame(20))
        assert pod.wait_received(21).trials.seen.count == before.trials.seen.count + 1


def _numbers(told: ProcessReport) -> object:
    return told.epoch, told.counts, told.trials
