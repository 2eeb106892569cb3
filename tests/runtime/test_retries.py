"""What is tried again, what is not, and what a pod does meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from greenroom_runtime.contract.bundle import GoldenSample
from greenroom_runtime.contract.report import FailureReason, PodReport, VersionState
from tests.support import bundles
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    REGRESSOR_ROWS,
    REGRESSOR_SIGNATURE,
    bundle_digest,
    regress,
    write_bundle,
    write_classifier,
    write_regressor,
)
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags


def _state(report: PodReport, version: str) -> VersionState | None:
    told = report.version(version)
    return told.state if told else None


def test_a_silent_source_is_asked_again(tmp_path: Path) -> None:
    """A source that is not there yet keeps the version Fetching, with a message, until it is."""
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        report = pod.wait_until(lambda report: any(version.message for version in report.versions))
        assert _state(report, "v1") is VersionState.FETCHING
        assert "does not exist" in report.versions[0].message
        write_classifier(tmp_path / "staging", "v1")
        (tmp_path / "staging").rename(tmp_path / "source")
        pod.wait_ready("v1")


def test_a_version_that_waits_for_another_pod_holds_up_no_retry(tmp_path: Path) -> None:
    """While another pod goes first with v2, this one goes on asking for its production."""
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", first="pod-1"))
        pod.wait_until(lambda report: any("tried again" in version.message for version in report.versions))
        write_classifier(tmp_path / "staging", "v1")
        (tmp_path / "staging").rename(tmp_path / "source")
        pod.wait_ready("v1")


def test_an_unready_pod_tries_its_absent_production_again(tmp_path: Path) -> None:
    """A pod that serves nothing says that the version is absent, and comes up once it is published."""
    (tmp_path / "source").mkdir()
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        report = pod.wait_failed("v1", FailureReason.NO_SUCH_VERSION)
        assert "tried again" in report.versions[0].message
        write_classifier(tmp_path / "staging", "v1")
        (tmp_path / "staging" / "v1").rename(tmp_path / "source" / "v1")
        pod.wait_ready("v1")


def test_an_unready_pod_proves_its_production_again_when_the_node_has_recovered(tmp_path: Path) -> None:
    """A trial that the node's OOM killer ends is no verdict on what others serve: the pod comes up later."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        os.kill(_trial_of(pod.process.pid), signal.SIGKILL)
        report = pod.wait_failed("v1", FailureReason.OUT_OF_MEMORY)
        assert "tried again" in report.versions[0].message
        pod.wait_ready("v1")
    states = [line["state"] for line in pod.log if line.get("event") == "version"]
    assert states == ["Fetching", "Proving", "Failed", "Loading", "Ready"]


def test_a_failed_version_is_tried_again_after_it_has_left(tmp_path: Path) -> None:
    """Failed is final while the version is resident; leaving and coming back is another chance."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_failed("v2", FailureReason.NO_SUCH_VERSION)
        write_classifier(source, "v2")
        pod.flags.write(flags("v1"))
        pod.wait_until(lambda report: report.version("v2") is None)
        pod.flags.write(flags("v1", "v2"))
        pod.wait_state("v2", VersionState.READY)


def test_another_attempt_is_another_chance(tmp_path: Path) -> None:
    """A pod that never saw the version leave tries it again all the same when the operator asks anew."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", attempt="v2@1"))
        pod.wait_failed("v2", FailureReason.NO_SUCH_VERSION)
        write_classifier(source, "v2")
        pod.flags.write(flags("v1", "v2", attempt="v2@2"))
        pod.wait_state("v2", VersionState.READY)


def test_another_attempt_takes_what_was_mended_under_the_same_name(tmp_path: Path) -> None:
    """A version that was fetched and proven wrong is fetched anew: its source may have the right one now."""
    source = tmp_path / "source"
    wrong = [GoldenSample(features=row, prediction=regress(row, 1.0)) for row in REGRESSOR_ROWS]
    write_regressor(source, "v1", golden=wrong)
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", attempt="v1@1"))
        pod.wait_failed("v1", FailureReason.GOLDEN_MISMATCH)
        shutil.rmtree(source / "v1")
        write_regressor(source, "v1")
        pod.flags.write(flags("v1", attempt="v1@2"))
        pod.wait_ready("v1")


def test_a_default_that_does_not_load_leaves_the_last_good_one(tmp_path: Path) -> None:
    """Told of a production version that fails, the pod goes on with the old one and says so."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    wanted = flags("v2")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        pod.flags.write(wanted)
        report = pod.wait_failed("v2", FailureReason.NO_SUCH_VERSION)
        assert (report.ready, report.production, report.revision) == (True, "v1", wanted.revision)
        assert pod.predict(CLASSIFIER_ROWS[0]).json()["version"] == "v1"
        assert (pod.models / "v1").is_dir()


def test_changed_bytes_under_a_pinned_name_are_never_fetched(tmp_path: Path) -> None:
    """Another bundle than the pinned one is DigestChanged; pinned anew, it is proven and serves."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    pinned = bundle_digest(write_classifier(source, "v2"))
    changed = bundle_digest(write_classifier(source, "v2", bias=1.0))
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", digests={"v2": pinned}))
        report = pod.wait_failed("v2", FailureReason.DIGEST_CHANGED)
        told = report.version("v2")
        assert told is not None
        assert told.failure is not None
        assert (told.failure.expected, told.failure.found) == (pinned, changed)
        pod.flags.write(flags("v1", "v2", digests={"v2": changed}))
        report = pod.wait_state("v2", VersionState.READY)
        assert report.version("v2").digest == changed  # type: ignore[union-attr]


def test_a_pin_of_the_same_bytes_changes_nothing(tmp_path: Path) -> None:
    """The operator pins what was proven; the version stays Ready and is not prepared again."""
    source = tmp_path / "source"
    digest = bundle_digest(write_classifier(source, "v1"))
    pinned = flags("v1", digests={"v1": digest})
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        pod.flags.write(pinned)
        pod.wait_until(lambda report: report.revision == pinned.revision)
        assert sum(line.get("state") == "Proving" for line in pod.log) == 1


def test_production_overtakes_a_slow_preparation(tmp_path: Path) -> None:
    """A new production version does not wait for the trial of another version."""
    source = tmp_path / "source"
    write_regressor(source, "v1")
    write_regressor(source, "v2")
    write_bundle(source, "slow", model=bundles.endless_graph(), signature=REGRESSOR_SIGNATURE)
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "slow"))
        pod.wait_state("slow", VersionState.PROVING)
        pod.flags.write(flags("v2", "slow"))
        report = pod.wait_ready("v2")
        assert _state(report, "slow") in (VersionState.PENDING, VersionState.FETCHING, VersionState.PROVING)


def test_a_trial_that_dies_is_a_crash(tmp_path: Path) -> None:
    """A version whose trial is ended by a signal is Failed(Crashed), with the signal; production serves."""
    source = tmp_path / "source"
    write_regressor(source, "v1")
    write_bundle(source, "v2", model=bundles.endless_graph(), signature=REGRESSOR_SIGNATURE)
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_ready("v1")
        pod.wait_state("v2", VersionState.PROVING)
        os.kill(_trial_of(pod.process.pid), signal.SIGSEGV)
        report = pod.wait_failed("v2", FailureReason.CRASHED)
        assert "SIGSEGV" in report.version("v2").failure.message  # type: ignore[union-attr]
        assert report.ready


def test_a_trial_dies_with_its_parent(tmp_path: Path) -> None:
    """A serving process that is killed leaves no trial behind."""
    source = tmp_path / "source"
    write_bundle(source, "v1", model=bundles.endless_graph(), signature=REGRESSOR_SIGNATURE)
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_state("v1", VersionState.PROVING)
        trial = _trial_of(pod.process.pid)
        _wait_until_bound_to_parent(trial)
        pod.process.kill()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while _alive(trial):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_trial_whose_parent_is_gone_already_ends(tmp_path: Path) -> None:
    """A trial that starts after its serving process has died does nothing."""
    directory = write_bundle(tmp_path, "v1", model=bundles.endless_graph(), signature=REGRESSOR_SIGNATURE)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    parent = gone.stdout.decode().strip()
    trial = ["greenroom_runtime.models.trial", "--bundle", str(directory)]
    ended = subprocess.run(
        [sys.executable, "-m", "greenroom_runtime.models.child", parent, "nice", *trial],
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"has ended" in ended.stderr


def test_a_version_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    """Under a memory limit the trial runs out of memory, and not the serving process."""
    source = tmp_path / "source"
    write_regressor(source, "v1")
    write_bundle(source, "v2", model=bundles.greedy_graph(1.0), signature=REGRESSOR_SIGNATURE)
    proof = {"memory_limit_bytes": 512 * 1024 * 1024}
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri(), proof=proof) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_ready("v1")
        report = pod.wait_failed("v2", FailureReason.OUT_OF_MEMORY)
        assert "resources.limits.memory" in report.version("v2").failure.message  # type: ignore[union-attr]
        assert report.ready


def test_golden_samples_may_be_required(tmp_path: Path) -> None:
    """Where golden samples are required, a bundle without any is refused."""
    source = tmp_path / "source"
    write_regressor(source, "v1")
    write_regressor(source, "v2", golden=None)
    write_regressor(source, "v3", golden=[])
    proof = {"golden": "Required"}
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri(), proof=proof) as pod:
        pod.flags.write(flags("v1", "v2", "v3"))
        pod.wait_ready("v1")
        pod.wait_failed("v2", FailureReason.GOLDEN_ABSENT)
        pod.wait_failed("v3", FailureReason.GOLDEN_ABSENT)


def _trial_of(parent: int) -> int:
    """Wait for the trial process of a serving process."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    tasks = Path(f"/proc/{parent}/task")
    while not (found := [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(found[0])


def _wait_until_bound_to_parent(trial: int) -> None:
    """Wait until the trial is nice: from then on it has asked to die with its parent."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while os.getpriority(os.PRIO_PROCESS, trial) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
