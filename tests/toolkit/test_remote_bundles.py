"""Bundles that lie in an object store or on a web server: verified there, and published there."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import obstore
import pytest

import greenroom
from examples.skew import train as skew
from greenroom.packaging import PackagingError, VersionExistsError
from greenroom.packaging.errors import PublishError
from greenroom.packaging.publishing import Publication
from greenroom.verification import Part
from tests.support.bundles import edit_manifest, write_classifier
from tests.support.examples import EXAMPLES
from tests.support.foreign import classifier_onnx, write_plain
from tests.support.s3 import S3Server, s3_server
from tests.support.web import web_server
from tests.toolkit.command import run_to_end

SOURCE = "s3://models/churn"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run a real S3 server."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Give the server with a bucket `models` that is empty, and credentials in the environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.create_bucket("models")
    yield server
    store = server.store("models")
    obstore.delete(store, [item["path"] for batch in store.list() for item in batch])


def publication(s3: S3Server, version: str = "v3", *, overwrite: bool = False) -> Publication:
    """Open the version's place."""
    return Publication.open(SOURCE, version, overwrite=overwrite, environment=s3.environment)


def keys(s3: S3Server) -> set[str]:
    """Return what the bucket holds."""
    return {item["path"] for batch in s3.store("models").list() for item in batch}


def content(s3: S3Server, key: str) -> bytes:
    """Return an object's bytes."""
    return bytes(obstore.get(s3.store("models"), key).bytes())


def test_a_pipeline_is_packaged_into_a_store(s3: S3Server, tmp_path: Path) -> None:
    """Whole, and proven there; packaged again it is the same model, and nothing is written."""
    frame, left = skew.customers()
    frame.assign(left=left).to_csv(tmp_path / "train.csv", index=False)
    typed = ("train:fit", "--data", str(tmp_path / "train.csv"), "--target", "left", "--name", "churn")
    command = [str(Path(sys.executable).with_name("greenroom")), "package", *typed, "--version", "v3"]

    def package(*more: str) -> subprocess.CompletedProcess[str]:
        told = [*command, "--to", SOURCE, *more, "-o", "json"]
        return subprocess.run(
            told, cwd=EXAMPLES / "skew", capture_output=True, text=True, timeout=180, check=False
        )

    done = package()
    assert (done.returncode, done.stderr) == (0, "")
    first = json.loads(done.stdout)
    assert first["bundle"] == f"{SOURCE}/v3"
    assert keys(s3) == {
        f"churn/v3/{name}" for name in ("bundle.json", "golden.jsonl", "model.onnx", "reference.json")
    }
    assert json.loads(run_to_end("verify", f"{SOURCE}/v3", "-o", "json").stdout)["verified"] is True
    again = package()
    assert again.returncode == 0
    assert "has the same model already: nothing was written" in again.stderr
    assert json.loads(again.stdout)["digest"] == first["digest"]
    other = package("--seed", "7")
    assert (other.returncode, other.stdout) == (1, "")
    assert "is there already with other bytes" in other.stderr
    assert json.loads(run_to_end("verify", f"{SOURCE}/v3/", "-o", "json").stdout)["verified"] is True


def test_a_version_is_published_to_google_cloud_storage(server: S3Server, tmp_path: Path) -> None:
    """Its protocol for objects is S3's but for who asks, so that a bucket for anybody shows it."""
    anybody = {"x-amz-acl": "public-read-write"}
    assert httpx2.put(f"{server.url}/anybodys", headers=anybody).status_code == 200
    bundle = write_classifier(tmp_path, "v3")
    environment = {"STORAGE_EMULATOR_HOST": server.url}

    def publish() -> bytes:
        place = Publication.open("gs://anybodys/churn", "v3", overwrite=False, environment=environment)
        return place.publish(bundle)

    assert publish() == (bundle / "bundle.json").read_bytes()
    assert publish() == (bundle / "bundle.json").read_bytes()
    done = run_to_end("verify", "gs://anybodys/churn/v3", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    edit_manifest(bundle, name="other")
    with pytest.raises(VersionExistsError, match="is there already with other bytes"):
        publish()


def test_a_version_is_overwritten_only_when_told(s3: S3Server, tmp_path: Path) -> None:
    """Another bundle of the same name is refused and changes no byte; with overwrite it takes the place."""
    first = write_classifier(tmp_path / "first", "v3", extra_files={"large.bin": bytes(12_000_000)})
    second = write_classifier(tmp_path / "second", "v3", bias=0.5)
    raw = publication(s3).publish(first)
    assert content(s3, "churn/v3/bundle.json") == raw == (first / "bundle.json").read_bytes()
    assert len(content(s3, "churn/v3/large.bin")) == 12_000_000
    with pytest.raises(VersionExistsError, match="choose another version, or --overwrite"):
        publication(s3).publish(second)
    assert greenroom.verify(f"{SOURCE}/v3").ok
    assert content(s3, "churn/v3/bundle.json") == raw
    publication(s3, overwrite=True).publish(second)
    assert content(s3, "churn/v3/bundle.json") == (second / "bundle.json").read_bytes()
    assert greenroom.verify(f"{SOURCE}/v3").ok


def test_a_publication_that_was_cut_is_gone_on_with(s3: S3Server, tmp_path: Path) -> None:
    """Until it is whole nothing takes it for a version, and `verify` says what it is."""
    bundle = write_classifier(tmp_path / "here", "v3")
    (bundle / "model.onnx").rename(tmp_path / "model.onnx")
    with pytest.raises(PublishError, match=r"model.onnx cannot be written: .* no pod takes the version"):
        publication(s3).publish(bundle)
    assert keys(s3) == {"churn/v3/golden.jsonl"}
    with pytest.raises(greenroom.UnverifiableError, match="its publication is under way or was cut"):
        greenroom.verify(f"{SOURCE}/v3")
    (tmp_path / "model.onnx").rename(bundle / "model.onnx")
    publication(s3).publish(bundle)
    assert greenroom.verify(f"{SOURCE}/v3").ok


def test_a_version_without_a_bundle_is_left_alone(s3: S3Server, tmp_path: Path) -> None:
    """A plain model under the name may be served: none of its bytes are touched, and nobody verifies it."""
    plain = write_plain(tmp_path / "plain", "v3", classifier_onnx())
    s3.upload(plain, "models", prefix="churn/v3/")
    before = content(s3, "churn/v3/model.onnx")
    with pytest.raises(VersionExistsError, match="it is a version without a bundle, or another publication"):
        publication(s3).publish(write_classifier(tmp_path / "here", "v3"))
    assert content(s3, "churn/v3/model.onnx") == before
    assert "churn/v3/bundle.json" not in keys(s3)


def test_of_two_that_publish_at_once_one_does(s3: S3Server, tmp_path: Path) -> None:
    """What lies there afterwards is one of both bundles, whole; the other publisher is told."""
    bundles = [write_classifier(tmp_path / str(number), "v3", bias=number / 4) for number in range(4)]
    together, refused = threading.Barrier(len(bundles)), []

    def publish(bundle: Path) -> None:
        place = publication(s3)
        together.wait()
        try:
            place.publish(bundle)
        except VersionExistsError as error:
            refused.append(error)

    threads = [threading.Thread(target=publish, args=(bundle,)) for bundle in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(bundles) - 1
    assert greenroom.verify(f"{SOURCE}/v3").ok


def test_what_is_damaged_there_is_found(s3: S3Server, tmp_path: Path) -> None:
    """A file with other bytes, of another size, or that is missing fails its check by name."""
    publication(s3).publish(write_classifier(tmp_path, "v3", extra_files={"a.bin": b"a", "b.bin": b"b"}))
    store = s3.store("models")
    for key, changed in (("a.bin", b"x"), ("b.bin", b"")):
        obstore.put(store, f"churn/v3/{key}", changed)
    obstore.delete(store, "churn/v3/golden.jsonl")
    found = greenroom.verify(f"{SOURCE}/v3")
    assert {(check.part, check.name) for check in found.failed} == {
        (Part.FILES, name) for name in ("a.bin", "b.bin", "golden.jsonl")
    }


def test_verify_reads_where_pods_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From web servers, and public buckets of Google and Azure, in whose protocols any server will do."""
    write_classifier(tmp_path / "models" / "churn", "v3")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    with web_server(tmp_path) as web:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", web.url)
        for uri in (f"{web.url}/models/churn/v3", "gs://models/churn/v3", "az://models/churn/v3"):
            assert greenroom.verify(uri).ok, uri
        web.faults.cut_after = 100
        with pytest.raises(greenroom.UnverifiableError, match="cannot be read"):
            greenroom.verify(f"{web.url}/models/churn/v3")


async def test_verify_works_where_a_loop_runs(tmp_path: Path) -> None:
    """As in a notebook."""
    write_classifier(tmp_path, "v3")
    with web_server(tmp_path) as web:
        assert greenroom.verify(f"{web.url}/v3").ok


@pytest.mark.parametrize(
    ("uri", "changes", "message"),
    [
        (f"{SOURCE}/v4", {}, "holds no bundle.json: name a version's URI"),
        ("s3://models", {}, "it names no version: write s3://models/VERSION"),
        ("s3://nowhere/churn/v3", {}, "there is no nowhere there: correct its name, or create it"),
        (f"{SOURCE}/v3", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "does AWS_ENDPOINT_URL name a store"),
        (
            f"{SOURCE}/v3",
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
            },
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ("az://models/churn/v3", {}, "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("https://127.0.0.1:1/churn/v3", {}, "does it answer from here?"),
        ("pvc://claim/churn/v3", {}, "which only the operator can mount"),
        ("ftp://models/churn/v3", {}, "use s3://BUCKET/PREFIX"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_what_cannot_be_read_is_one_clear_line(
    uri: str, changes: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 2, the remedy is there, and nothing is left behind."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    done = run_to_end("verify", uri, environment={"TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("s3://nowhere/churn", {}, "there is no nowhere there"),
        (SOURCE, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "does AWS_ENDPOINT_URL name a store"),
        ("https://127.0.0.1:1/churn", {}, "cannot be written to: name a directory, s3://BUCKET/PREFIX"),
        ("s3://", {}, "this is no object store"),
        ("az://models", {}, "set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_first(
    source: str, changes: dict[str, str], message: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is packaged: PublishError with the remedy."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PublishError, match=message):
        Publication.open(source, "v3", overwrite=False, environment={**s3.environment, **changes})


def test_another_version_under_the_name_is_refused(s3: S3Server, tmp_path: Path) -> None:
    """A bundle that says another version than its place would be refused by pods; so it is here."""
    publication(s3).publish(write_classifier(tmp_path, "v3"))
    moved = shutil.copytree(tmp_path / "v3", tmp_path / "v4")
    s3.upload(moved, "models", prefix="churn/v4/")
    with pytest.raises(greenroom.UnverifiableError, match="says that it is version 'v3', not 'v4'"):
        greenroom.verify(f"{SOURCE}/v4")
    edit_manifest(moved, version="v4", files=[])
    s3.upload(moved, "models", prefix="churn/v4/")
    with pytest.raises(greenroom.UnverifiableError, match="package the model again"):
        greenroom.verify(f"{SOURCE}/v4")


def test_python_packages_into_directories() -> None:
    """A URI is no directory of that name; the remedy is told."""
    frame, left = skew.customers()
    with pytest.raises(PackagingError, match="package into one, and publish that"):
        greenroom.package(skew.fit(), frame, list(left), name="churn", version="v3", to=SOURCE)
