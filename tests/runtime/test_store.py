"""The bundle store on a real disk."""

import asyncio
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import SourceUnreachableError, VersionError
from greenroom_runtime.models.in_place import proven_after
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import DirectorySource, UnsupportedSourceError, open_source
from greenroom_runtime.models.store import BundleStore, StoreError
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    bundle_digest,
    classifier_graph,
    classify,
    edit_manifest,
    regressor_graph,
    write_classifier,
)
from tests.support.foreign import write_plain


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Publish v1 and v2."""
    for version in ("v1", "v2"):
        write_classifier(tmp_path / "source", version)
    return tmp_path / "source"


@pytest.fixture
def store(source: Path, tmp_path: Path) -> BundleStore:
    """Open an empty store on the source."""
    return BundleStore(tmp_path / "models", source=DirectorySource(source))


async def test_a_stored_bundle_is_whole(store: BundleStore, source: Path, tmp_path: Path) -> None:
    """What is obtained lies under the version's name, byte for byte, and no stage is left."""
    stored = await store.obtain("v1", pinned=bundle_digest(source / "v1"))
    assert stored.path == tmp_path / "models" / "v1"
    assert stored.digest == bundle_digest(source / "v1")
    for file in stored.bundle.files:
        assert (stored.path / file.path).read_bytes() == (source / "v1" / file.path).read_bytes()
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir()) == [".lock", "v1"]


async def test_a_given_up_fetch_is_gone_on_with_or_collected(store: BundleStore, tmp_path: Path) -> None:
    """What a preparation has left half-way is taken up by the next one, and goes with its version."""
    stage = tmp_path / "models" / ".stage-v1"
    fetch = asyncio.create_task(store.obtain("v1", pinned=None))
    while not stage.exists():  # noqa: ASYNC110 a directory is no event
        await asyncio.sleep(0)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert stage.is_dir()
    store.collect(frozenset({"v1"}))
    assert stage.is_dir()
    store.collect(frozenset())
    assert not stage.exists()
    assert (await store.obtain("v1", pinned=None)).version == "v1"
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir()) == [".lock", "v1"]


async def test_a_version_without_room_is_refused(source: Path, tmp_path: Path) -> None:
    """A bundle larger than the free disk is NoSpace before a byte of it is fetched."""
    store = BundleStore(tmp_path / "models", source=DirectorySource(source), copied_bytes=2**63)
    files = [{"path": "model.onnx", "sha256": "0" * 64, "size": 10**18}]
    edit_manifest(source / "v1", files=files)
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.NO_SPACE


async def test_a_full_disk_is_no_space(source: Path, tmp_path: Path) -> None:
    """A disk that fills up while a bundle is written is NoSpace, and the store goes on once there is room."""
    store = BundleStore(tmp_path / "models", source=DirectorySource(source))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # smaller than the bundle: as good as a full disk
    try:
        with pytest.raises(VersionError) as caught:
            await store.obtain("v1", pinned=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.failure.reason is FailureReason.NO_SPACE
    assert (await store.obtain("v1", pinned=None)).version == "v1"


async def test_aliases_are_links_that_follow(store: BundleStore, tmp_path: Path) -> None:
    """An alias is a relative link, replaced in one step; without a version it goes."""
    await store.obtain("v1", pinned=None)
    link = tmp_path / "models" / "production"
    for version in ("v1", "v1", "v2"):
        store.point_alias("production", version)
        assert link.readlink() == Path(version)
    store.point_alias("production", "")
    assert not link.is_symlink()


async def test_only_bundles_are_collected(store: BundleStore, tmp_path: Path) -> None:
    """What is not to be kept goes; what is no bundle of ours stays."""
    for version in ("v1", "v2"):
        await store.obtain(version, pinned=None)
    foreign = tmp_path / "models" / "lost+found"
    foreign.mkdir()
    assert store.collect(frozenset({"v1"})) == ["v2"]
    assert foreign.is_dir()
    assert (tmp_path / "models" / "v1").is_dir()


async def test_loading_markers_count(source: Path, tmp_path: Path) -> None:
    """Each load that nobody has ended counts as one crash; an unreadable marker counts as one."""
    for crashes in range(3):
        store = BundleStore(tmp_path / "models", source=DirectorySource(source))
        assert store.crashes("v1") == crashes
        store.begin_loading("v1")
        assert store.crashes("v1") == crashes, "a load that is under way is no crash"
        store.close()  # and the process is gone
    store = BundleStore(tmp_path / "models", source=DirectorySource(source))
    store.end_loading("v1")
    assert store.crashes("v1") == 0
    (tmp_path / "models" / ".loading-v1").write_text("")
    assert store.crashes("v1") == 1


async def test_an_alias_is_no_version(store: BundleStore) -> None:
    """Nobody can publish a version under an alias's name."""
    with pytest.raises(VersionError, match="alias"):
        await store.obtain("production", pinned=None)


def linking(source: Path, directory: Path) -> BundleStore:
    """Open a store that takes every file for a large one."""
    return BundleStore(directory, source=DirectorySource(source), copied_bytes=0)


def _make_read_only(directory: Path) -> None:
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


async def test_large_files_of_a_mounted_source_are_linked(source: Path, tmp_path: Path) -> None:
    """They are verified where they lie, in a mount that may be read-only, and cost no room; small ones do."""
    _make_read_only(source)
    store = linking(source, tmp_path / "models")
    stored = await store.obtain("v1", pinned=bundle_digest(source / "v1"))
    assert (stored.path / "model.onnx").readlink() == source / "v1" / "model.onnx"
    assert not (stored.path / "golden.jsonl").is_symlink()
    session = ModelSession(stored.path, bundle=stored.bundle)
    assert session.predict([CLASSIFIER_ROWS[0]])[0].prediction == classify(CLASSIFIER_ROWS[0], 0.0)[0]
    assert store.collect(frozenset()) == ["v1"]
    assert sorted(path.name for path in (source / "v1").iterdir()) == [
        "bundle.json",
        "golden.jsonl",
        "model.onnx",
    ]


async def test_a_plain_model_is_linked_too(tmp_path: Path) -> None:
    """What was not packaged is read and loaded where it lies as well."""
    write_plain(tmp_path / "source", "v1", regressor_graph(0.0))
    stored = await linking(tmp_path / "source", tmp_path / "models").obtain("v1", pinned=None)
    assert (stored.path / "model.onnx").is_symlink()
    row = {f"x_{at}": 1.0 for at in range(3)}
    assert ModelSession(stored.path, bundle=stored.bundle).predict([row])[0].prediction == 9.0


async def test_a_linked_file_that_changed_is_never_served(source: Path, tmp_path: Path) -> None:
    """Between proof and load, or while it is loaded: other bytes than those hashed are DigestMismatch."""
    store = linking(source, tmp_path / "models")
    stored = await store.obtain("v1", pinned=None)
    model = source / "v1" / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(classifier_graph(9.0))
    with pytest.raises(VersionError) as caught:
        ModelSession(stored.path, bundle=stored.bundle)
    assert caught.value.failure.reason is FailureReason.DIGEST_MISMATCH
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=stored.digest)
    assert caught.value.failure.reason is FailureReason.DIGEST_MISMATCH
    model.write_bytes(good)
    os.utime(model, (0, 0))  # the next change shows, however coarse the clock
    file = next(file for file in stored.bundle.files if file.path == "model.onnx")
    await store.obtain("v1", pinned=stored.digest)

    def load_while_it_changes_and_changes_back() -> None:
        with proven_after(stored.path / "model.onnx", file=file) as path:
            assert path.read_bytes() == good
            model.write_bytes(good)

    with pytest.raises(VersionError, match="was changed in"):
        load_while_it_changes_and_changes_back()


async def test_a_linked_file_that_became_a_pipe_holds_up_nobody(source: Path, tmp_path: Path) -> None:
    """Whoever may write into the mount may put anything there: it is refused, not waited for."""
    store = linking(source, tmp_path / "models")
    stored = await store.obtain("v1", pinned=None)
    (source / "v1" / "model.onnx").unlink()
    os.mkfifo(source / "v1" / "model.onnx")
    with pytest.raises(VersionError, match="no regular file"):
        ModelSession(stored.path, bundle=stored.bundle)
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE


async def test_a_mount_that_comes_back_is_used_again(source: Path, tmp_path: Path) -> None:
    """A link into a mount that is gone is no stored bundle: the source is asked, and waited for."""
    store = linking(source, tmp_path / "models")
    await store.obtain("v1", pinned=None)
    shutil.move(source, tmp_path / "away")
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)
    shutil.move(tmp_path / "away", source)
    assert (await store.obtain("v1", pinned=None)).version == "v1"


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("a", "a/b"), "is a file and, for a/b, a directory"),
        (("bundle.json/x",), "bundle.json"),
        (("n" * 300,), "longer than"),
        (("/".join("d" * 200 for _ in range(9)),), "longer than"),
        (("../x",), "String should match pattern"),
        ((".hidden",), "String should match pattern"),
    ],
    ids=["file and directory", "manifest as directory", "long name", "long path", "outside", "hidden"],
)
async def test_paths_that_no_disk_can_hold_are_refused(
    paths: tuple[str, ...], words: str, store: BundleStore, source: Path
) -> None:
    """They are InvalidBundle at once, and not tried again as if the disk had a bad day."""
    document = json.loads((source / "v1" / "bundle.json").read_text())
    more = [{"path": path, "sha256": "0" * 64, "size": 1} for path in paths]
    edit_manifest(source / "v1", files=[*document["files"], *more])
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=None)
    failure = caught.value.failure
    assert failure.reason is FailureReason.INVALID_BUNDLE
    assert words in failure.message


async def test_a_bundle_of_countless_files_is_refused(store: BundleStore, source: Path) -> None:
    """Each file of a bundle is a wait for the disk: thousands are no model."""
    document = json.loads((source / "v1" / "bundle.json").read_text())
    more = [{"path": f"f{number}", "sha256": "0" * 64, "size": 0} for number in range(1000)]
    edit_manifest(source / "v1", files=[*document["files"], *more])
    with pytest.raises(VersionError, match="more than 1000") as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE


async def test_an_alias_is_read_through_once(store: BundleStore, tmp_path: Path) -> None:
    """A reader that has resolved production keeps the version that it was, whatever the link becomes."""
    for version in ("v1", "v2"):
        await store.obtain(version, pinned=None)
    store.point_alias("production", "v1")
    resolved = (tmp_path / "models" / "production").resolve()
    store.point_alias("production", "v2")
    assert resolved == tmp_path / "models" / "v1"
    assert (tmp_path / "models" / "production").resolve() == tmp_path / "models" / "v2"


async def test_a_source_that_goes_away_is_unreachable(store: BundleStore, source: Path) -> None:
    """A source that is gone says nothing about its versions."""
    shutil.rmtree(source)
    with pytest.raises(SourceUnreachableError):
        await store.obtain("v1", pinned=None)


def test_a_store_never_overlaps_its_source(source: Path, tmp_path: Path) -> None:
    """A store deletes what is not resident, so it refuses to lie in, on or around its source."""
    for directory in (source, source / "models", tmp_path):
        with pytest.raises(StoreError, match="overlap"):
            BundleStore(directory, source=DirectorySource(source))
    assert sorted(entry.name for entry in source.iterdir()) == ["v1", "v2"], "nothing is left in it either"


def test_a_store_deletes_no_bundles_but_its_own(source: Path, tmp_path: Path) -> None:
    """A directory with bundles that no store has put there is somebody's: it is refused, and left alone."""
    write_classifier(tmp_path / "mine", "v1")
    with pytest.raises(StoreError, match="holds v1, which no store has put there"):
        BundleStore(tmp_path / "mine", source=DirectorySource(source))
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["v1"]


@pytest.mark.parametrize("uri", ["", "models", "ftp://host/models", "file://host/models", "s3://", "S3:/x"])
def test_other_sources_are_refused_with_the_remedy(uri: str) -> None:
    """A URI that this release does not read names those that it does."""
    with pytest.raises(UnsupportedSourceError, match="use s3://"):
        open_source(uri, environment={})
