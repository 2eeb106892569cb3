"""Bundles from an object store, over the real protocol."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom_runtime.contract.report import FailureReason, VersionState
from greenroom_runtime.models.failures import SourceUnreachableError
from greenroom_runtime.models.source import open_source
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.s3 import S3Server, s3_server
from tests.support.serving import ServingProcess, flags


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run one S3 server for all of these tests."""
    with s3_server() as server:
        yield server


def test_serves_from_a_bucket(server: S3Server, tmp_path: Path) -> None:
    """Versions are fetched from a bucket behind a custom endpoint; one that is not there is NoSuchVersion."""
    write_classifier(tmp_path / "source", "v1", extra_files={"big/file.bin": b"7" * 9_000_000})
    write_classifier(tmp_path / "source", "v2")
    server.create_bucket("models")
    server.upload(tmp_path / "source", "models", prefix="churn/")
    with ServingProcess(
        tmp_path / "pod", source_uri="s3://models/churn", environment=server.environment
    ) as pod:
        pod.flags.write(flags("v1", "v2", "v3"))
        report = pod.wait_settled()
        assert report.production == "v1"
        assert pod.predict(CLASSIFIER_ROWS[0]).status_code == 200
        assert (pod.models / "v1" / "big" / "file.bin").stat().st_size == 9_000_000
        assert report.version("v2").state is VersionState.READY  # type: ignore[union-attr]
        assert report.version("v3").failure.reason is FailureReason.NO_SUCH_VERSION  # type: ignore[union-attr]


def test_a_truncated_object_is_refused(server: S3Server, tmp_path: Path) -> None:
    """An object of another size than the bundle says is DigestMismatch."""
    model = write_classifier(tmp_path / "source", "v1") / "model.onnx"
    model.write_bytes(model.read_bytes()[:-10])
    server.create_bucket("truncated")
    server.upload(tmp_path / "source", "truncated")
    with ServingProcess(tmp_path / "pod", source_uri="s3://truncated", environment=server.environment) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_failed("v1", FailureReason.DIGEST_MISMATCH)


def test_a_bucket_that_does_not_exist_yet_is_waited_for(server: S3Server, tmp_path: Path) -> None:
    """No bucket says nothing about the version: it stays Fetching, and serves once the bucket is there."""
    write_classifier(tmp_path / "source", "v1")
    with ServingProcess(
        tmp_path / "pod", source_uri="s3://later/models", environment=server.environment
    ) as pod:
        pod.flags.write(flags("v1"))
        report = pod.wait_until(lambda report: any(version.message for version in report.versions))
        assert report.versions[0].state is VersionState.FETCHING
        server.create_bucket("later")
        server.upload(tmp_path / "source", "later", prefix="models/")
        pod.wait_ready("v1")


async def test_the_same_trouble_is_told_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that fail alike say alike, and why: else each one would be news, and a write to the status."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        environment = S3Server(url=f"http://127.0.0.1:{deaf.getsockname()[1]}").environment
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        source = open_source("s3://models", environment=environment)
        told = []
        for _ in range(2):
            with pytest.raises(SourceUnreachableError) as caught:
                await source.stat("v1", "bundle.json")
            told.append(str(caught.value))
    assert told[0] == told[1]
    assert told[0].endswith("error sending request: Connection refused")


def test_a_dead_endpoint_is_waited_for(tmp_path: Path) -> None:
    """An endpoint that refuses connections keeps the version Fetching; the pod serves once it is up."""
    write_classifier(tmp_path / "source", "v1")
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    environment = S3Server(url=f"http://127.0.0.1:{port}").environment
    with ServingProcess(tmp_path / "pod", source_uri="s3://models", environment=environment) as pod:
        pod.flags.write(flags("v1"))
        report = pod.wait_until(lambda report: any(version.message for version in report.versions))
        assert report.versions[0].state is VersionState.FETCHING
        with s3_server(port) as server:
            server.create_bucket("models")
            server.upload(tmp_path / "source", "models")
            pod.wait_ready("v1")
