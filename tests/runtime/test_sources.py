"""Each kind of source, and downloads that are cut."""

import json
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from greenroom_runtime.contract.report import FailureReason, VersionState
from greenroom_runtime.models.failures import ChangedInSourceError, SourceUnreachableError, VersionError
from greenroom_runtime.models.source import DirectorySource, FileStat, UnsupportedSourceError, open_source
from greenroom_runtime.models.store import BundleStore
from tests.support.bundles import bundle_digest, write_classifier
from tests.support.foreign import large_onnx, write_plain
from tests.support.serving import ServingProcess, flags
from tests.support.web import WebServer, web_server, write_certificate

MIB = 1024 * 1024
BIG = "big.bin"
CUT = 3 * MIB + 12_345


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Publish v1 with a large file."""
    write_classifier(tmp_path / "source", "v1", extra_files={BIG: bytes(range(256)) * (6 * MIB // 256)})
    return tmp_path / "source"


@pytest.fixture
def web(source: Path) -> Iterator[WebServer]:
    """Serve the source over HTTP."""
    with web_server(source) as web:
        yield web


@pytest.fixture
def store(web: WebServer, tmp_path: Path) -> Iterator[BundleStore]:
    """Open an empty store on the web server."""
    store = BundleStore(tmp_path / "models", source=open_source(web.url, environment={}))
    yield store
    store.close()


def test_serves_from_a_private_https_server(source: Path, tmp_path: Path) -> None:
    """A certificate of one's own authority is believed where SSL_CERT_FILE names it, and only there."""
    certificate = write_certificate(tmp_path / "authority.pem")
    with web_server(source, tls=certificate) as web:
        with ServingProcess(tmp_path / "stranger", source_uri=web.url) as pod:
            pod.flags.write(flags("v1"))
            report = pod.wait_until(lambda report: any(version.message for version in report.versions))
            assert report.versions[0].state is VersionState.FETCHING
            assert "certificate" in report.versions[0].message
        environment = {"SSL_CERT_FILE": str(certificate)}
        with ServingProcess(tmp_path / "pod", source_uri=web.url, environment=environment) as pod:
            pod.flags.write(flags("v1", "v9"))
            report = pod.wait_settled()
            assert report.production == "v1"
            assert report.version("v9").failure.reason is FailureReason.NO_SUCH_VERSION  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("uri", "variable"),
    [("gs://models/churn", "GOOGLE_BASE_URL"), ("az://models/churn", "AZURE_STORAGE_ENDPOINT")],
)
async def test_reads_a_public_bucket_of_google_and_azure(
    uri: str, variable: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no signature is plain HTTP in their protocols: any server at the endpoint will do."""
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_SKIP_SIGNATURE": "true",
        "GOOGLE_SKIP_SIGNATURE": "true",
    }
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "churn").symlink_to(source)
    with web_server(tmp_path) as web:
        for name, value in {**environment, variable: web.url}.items():
            monkeypatch.setenv(name, value)
        store = BundleStore(tmp_path / "pod", source=open_source(uri, environment={variable: web.url}))
        stored = await store.obtain("v1", pinned=None)
        assert stored.digest == bundle_digest(source / "v1")
        with pytest.raises(VersionError) as caught:
            await store.obtain("v2", pinned=None)
        assert caught.value.failure.reason is FailureReason.NO_SUCH_VERSION


async def test_a_redirect_to_another_host_is_not_followed(
    web: WebServer, store: BundleStore, source: Path
) -> None:
    """Who wrote the URI decides where a pod asks: a redirect elsewhere is told, one within is followed."""
    with web_server(source) as other:
        web.faults.redirect_to = other.url
        with pytest.raises(SourceUnreachableError, match=r"redirects to .* which is not followed"):
            await store.obtain("v1", pinned=None)
        assert other.requests == []
    web.faults.redirect_to = "/moved"
    assert (await store.obtain("v1", pinned=None)).version == "v1"


async def test_a_redirect_in_circles_ends(web: WebServer, store: BundleStore) -> None:
    """A server that sends its client round and round is left."""
    web.faults.redirect_to = web.url
    with pytest.raises(SourceUnreachableError, match="circles"):
        await store.obtain("v1", pinned=None)


@pytest.mark.parametrize("place", ["http://[::1", "http://127.0.0.1:99999", "mailto:somebody@"])
async def test_a_redirect_to_nowhere_is_told(place: str, web: WebServer, store: BundleStore) -> None:
    """A server that is out of order says nothing about the version: it is asked again."""
    web.faults.redirect_to = place
    with pytest.raises(SourceUnreachableError, match="redirects to nowhere"):
        await store.obtain("v1", pinned=None)


async def test_a_body_without_a_length_is_told(web: WebServer, store: BundleStore) -> None:
    """Where nobody could tell whether it was cut, nothing is fetched, and the remedy is named."""
    web.faults.lengths = False
    with pytest.raises(SourceUnreachableError, match="serve plain files"):
        await store.obtain("v1", pinned=None)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole files only"])
async def test_a_cut_download_goes_on_where_it_was(web: WebServer, store: BundleStore, ranges: bool) -> None:  # noqa: FBT001
    """The next attempt asks for the rest, and makes do with a server that only sends whole files."""
    web.faults.cut_after = CUT
    web.faults.ranges = ranges
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    stored = await store.obtain("v1", pinned=None)
    assert (stored.path / BIG).read_bytes() == (web.directory / "v1" / BIG).read_bytes()
    whole, rest = web.ranges_asked(BIG)
    assert whole == ""
    assert MIB <= int(rest.removeprefix("bytes=").removesuffix("-")) <= CUT
    assert len(web.ranges_asked("model.onnx")) == 1, "what was whole is fetched again"


async def test_a_cut_download_is_taken_up_by_obstore_too(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store whose connections are cut again and again is fetched piece by piece, in one attempt."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    (web.directory / "bucket").symlink_to(web.directory)
    web.faults.cut_after = 4 * MIB
    source = open_source("gs://bucket", environment={"GOOGLE_BASE_URL": web.url})
    stored = await BundleStore(tmp_path / "pod", source=source).obtain("v1", pinned=None)
    assert (stored.path / BIG).stat().st_size == 6 * MIB
    assert len(web.ranges_asked(BIG)) == 2


async def test_an_object_that_changed_meanwhile_is_begun_anew(
    web: WebServer, store: BundleStore, source: Path
) -> None:
    """The rest of another file is never put behind the beginning of the first one."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    content = (source / "v1" / BIG).read_bytes()
    web.faults.etag = "another"
    stored = await store.obtain("v1", pinned=None)
    assert web.ranges_asked(BIG) == ["", ""]
    assert (stored.path / BIG).read_bytes() == content


async def test_a_stage_that_turns_out_wrong_is_thrown_away(
    web: WebServer, store: BundleStore, tmp_path: Path
) -> None:
    """What lies on the disk is hashed again: damaged, it is fetched whole, in the same attempt."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    half = tmp_path / "models" / ".stage-v1" / "files" / BIG
    half.write_bytes(b"\0" * half.stat().st_size)
    stored = await store.obtain("v1", pinned=None)
    assert (stored.path / BIG).read_bytes() == (web.directory / "v1" / BIG).read_bytes()
    assert web.ranges_asked(BIG)[-1] == ""


async def test_without_etags_a_file_is_begun_anew(web: WebServer, store: BundleStore) -> None:
    """A source that cannot tell one file from another is not trusted to go on with it."""
    web.faults.etags = False
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    assert (await store.obtain("v1", pinned=None)).version == "v1"
    assert web.ranges_asked(BIG) == ["", ""]


async def test_a_plain_model_goes_on_too(
    web: WebServer, store: BundleStore, source: Path, tmp_path: Path
) -> None:
    """No digest says what its bytes should be, so its ETag decides; the parts are as good as the whole."""
    write_plain(source, "plain", large_onnx(6))
    whole = await BundleStore(tmp_path / "whole", source=DirectorySource(source)).obtain("plain", pinned=None)
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("plain", pinned=None)
    web.faults.cut_after = None
    stored = await store.obtain("plain", pinned=whole.digest)
    assert stored.digest == whole.digest
    assert web.ranges_asked("model.onnx")[-1].startswith("bytes=")


async def test_a_plain_model_that_changed_is_never_mixed(
    web: WebServer, store: BundleStore, source: Path, tmp_path: Path
) -> None:
    """Half of one file and half of another would be a model that nobody has made."""
    write_plain(source, "plain", large_onnx(6))
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("plain", pinned=None)
    web.faults.cut_after = None
    (source / "plain" / "model.onnx").write_bytes(large_onnx(7))
    stored = await store.obtain("plain", pinned=None)
    whole = await BundleStore(tmp_path / "whole", source=DirectorySource(source)).obtain("plain", pinned=None)
    assert stored.digest == whole.digest


async def test_a_stage_holds_no_file_that_has_gone(web: WebServer, store: BundleStore, source: Path) -> None:
    """A signature that was fetched with half a model is not the next model's, which has come without one."""
    write_plain(source, "plain", large_onnx(6))
    columns = [{"type": "float", "name": name} for name in ("age", "income", "visits")]
    signature = {"inputs": json.dumps(columns)}
    mlmodel = {"flavors": {"onnx": {"data": "model.onnx"}}, "signature": signature}
    (source / "plain" / "MLmodel").write_text(json.dumps(mlmodel))
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("plain", pinned=None)
    web.faults.cut_after = None
    (source / "plain" / "MLmodel").unlink()
    stored = await store.obtain("plain", pinned=None)
    assert not (stored.path / "MLmodel").exists()
    assert [feature.name for feature in stored.bundle.signature.features] == ["x_0", "x_1", "x_2"]


async def test_files_of_two_publications_are_never_mixed(source: Path, tmp_path: Path) -> None:
    """Of files that no manifest ties together none may change until all of them are here."""
    write_plain(source, "plain", large_onnx(1))
    mlmodel = source / "plain" / "MLmodel"
    mlmodel.write_text("flavors: {onnx: {data: model.onnx}}")

    class Republished(DirectorySource):
        """Another MLmodel is published while the model is read."""

        async def stream(
            self, version: str, path: str, *, start: int, begun: FileStat
        ) -> AsyncGenerator[bytes, None]:
            async for chunk in super().stream(version, path, start=start, begun=begun):
                yield chunk
            if path == "model.onnx":
                mlmodel.write_text("flavors: {onnx: {data: model.onnx}} # of another")

    store = BundleStore(tmp_path / "models", source=Republished(source))
    with pytest.raises(SourceUnreachableError, match="was changed"):
        await store.obtain("plain", pinned=None)


async def test_a_file_that_is_overwritten_while_it_is_read_is_told(source: Path) -> None:
    """Half of one file and half of another, of the same length and even of the same date, are no file."""
    big = source / "v1" / BIG
    reading = DirectorySource(source)
    begun = await reading.stat("v1", BIG)
    dates = big.stat()
    stream = reading.stream("v1", BIG, start=0, begun=begun)
    await anext(stream)
    big.write_bytes(bytes(begun.size))
    os.utime(big, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    with pytest.raises(ChangedInSourceError):
        [chunk async for chunk in stream]


async def test_another_manifest_begins_anew(web: WebServer, store: BundleStore, source: Path) -> None:
    """Parts belong to the bundle that listed them: published again, nothing of the first is used."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    write_classifier(source, "v1", bias=1.0, extra_files={BIG: b"short"})
    stored = await store.obtain("v1", pinned=None)
    assert stored.digest == bundle_digest(source / "v1")
    assert (stored.path / BIG).read_bytes() == b"short"


async def test_room_is_asked_for_the_rest_only(web: WebServer, store: BundleStore, tmp_path: Path) -> None:
    """What is on the disk already needs no more room."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    held = sum(
        file.stat().st_size
        for file in (tmp_path / "models" / ".stage-v1" / "files").rglob("*")
        if file.is_file()
    )
    assert held >= MIB
    stage = await store._stage("v1", origin=bundle_digest(web.directory / "v1"))
    assert stage.held_bytes() == held


def test_a_killed_process_goes_on_after_its_restart(web: WebServer, tmp_path: Path) -> None:
    """SIGKILL in the middle of a download costs what was on its way, no more."""
    web.faults.hang_after = CUT
    half = tmp_path / "pod" / "models" / ".stage-v1" / "files" / BIG
    with ServingProcess(tmp_path / "pod", source_uri=web.url) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_until(lambda _: half.exists() and half.stat().st_size >= 2 * MIB)
        pod.process.send_signal(signal.SIGKILL)
        pod.process.wait()
    web.faults.hang_after = None
    with ServingProcess(tmp_path / "pod", source_uri=web.url) as pod:
        pod.wait_ready("v1")
        assert not half.parent.parent.exists()
    first, rest = web.ranges_asked(BIG)
    assert (first, rest.startswith("bytes=")) == ("", True)
    assert int(rest.removeprefix("bytes=").removesuffix("-")) >= 2 * MIB


async def test_a_file_of_another_length_is_refused(web: WebServer, store: BundleStore, source: Path) -> None:
    """A file that was cut before it was published is DigestMismatch with both lengths; no stage is left."""
    (source / "v1" / BIG).write_bytes(b"short")
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=None)
    failure = caught.value.failure
    assert (failure.reason, failure.file) == (FailureReason.DIGEST_MISMATCH, BIG)
    assert (failure.expected, failure.found) == (str(6 * MIB), "5")
    assert not list((source.parent / "models").glob(".stage-*"))
    assert web.requests


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("pvc://claim/models", "only the operator can mount"),
        ("http://models.example.com/churn", "use https://"),
        ("user:secret@models.example.com", "use s3://"),
        ("https://user:secret@models.example.com", "credentials come from the environment"),
        ("s3://models/churn?x=1", "credentials come from the environment"),
        ("abfs://container@account/churn", "credentials come from the environment"),
        ("abfs://container/churn", "az://CONTAINER/PREFIX"),
        ("oci://image", "use s3://"),
        ("gs://", "gs://BUCKET/PREFIX"),
    ],
)
def test_what_is_no_source_is_told_with_the_remedy(uri: str, remedy: str) -> None:
    """Each kind of wrong URI says what to write instead."""
    with pytest.raises(UnsupportedSourceError, match=remedy) as told:
        open_source(uri, environment={})
    assert "secret" not in str(told.value), "it is told in the pod's log"


def test_an_incomplete_environment_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot even be opened is a configuration that cannot work, in the store's own words."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UnsupportedSourceError, match="Account must be specified"):
        open_source("az://container/prefix", environment={})


async def test_a_stage_of_another_boot_is_begun_anew(
    web: WebServer, store: BundleStore, tmp_path: Path
) -> None:
    """What a crashed machine has left of an unsynced file may be anything, its length notwithstanding."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    record = tmp_path / "models" / ".stage-v1" / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "another"}))
    assert (await store.obtain("v1", pinned=None)).version == "v1"
    assert web.ranges_asked(BIG) == ["", ""]


@pytest.mark.parametrize("record", [b"", b"\xff", b"[]", b'{"boot": 1}'])
async def test_a_spoilt_record_is_begun_anew(
    record: bytes, web: WebServer, store: BundleStore, tmp_path: Path
) -> None:
    """A record that was cut in its own writing costs the stage, no more."""
    web.faults.cut_after = CUT
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    web.faults.cut_after = None
    (tmp_path / "models" / ".stage-v1" / "record.json").write_bytes(record)
    assert (await store.obtain("v1", pinned=None)).version == "v1"
