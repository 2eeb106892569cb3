"""Our images, built from our own unmodified Dockerfiles without Docker and without an image registry."""

import configparser
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import debian, paths
from e2e.cluster.locks import lock
from e2e.cluster.model import ClusterError
from e2e.cluster.node import snapshotter
from e2e.cluster.progress import step
from e2e.cluster.shell import run, run_long

BASE = "docker.io/library/debian:trixie-slim"
SUITE = "trixie"
MIRRORS = re.compile(r"https?://[^\s\]]+/debian/?(?=\s|$)")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
KEEP_ARCHIVES = 3600.0
ISOLATION = {"BUILDAH_ISOLATION": "chroot"}


@dataclass(frozen=True)
class Built:
    """A built image."""

    archive: Path
    """A docker-archive."""
    identity: str
    """Changes if and only if the image does."""


def build(image: str, dockerfile: Path, context: Path) -> Built:
    """Build a Dockerfile as `image`; unchanged layers come from earlier builds."""
    base()
    with lock(_store() / "lock", "builds an image"), tempfile.TemporaryDirectory() as directory:
        identity_file = Path(directory) / "identity"
        with _configuration(Path(directory)) as mounts, step(f"building {image}"):
            command = [
                *_buildah("build-using-dockerfile"),
                "--layers",
                "--pull-never",
                "--network=host",
                *mounts,
            ]
            files = ["--iidfile", str(identity_file), "--file", str(dockerfile), "--tag", image, str(context)]
            run_long([*command, *files], f"building {image}", env=ISOLATION)
        identity = identity_file.read_text().strip().removeprefix("sha256:")
        return Built(_archive(image, identity), identity)


def base() -> None:
    """Make the Debian image on which ours are built, from Debian's own packages."""
    if os.geteuid() != 0:
        raise ClusterError("building images without Docker needs root")
    debian.install(debian.IMAGES)
    with lock(_store() / "lock", "builds an image"):
        if BASE in run([*_buildah("images"), "--format", "{{.Name}}:{{.Tag}}"]).split():
            return
        with (
            step(f"making {BASE} with debootstrap", "1 min"),
            tempfile.TemporaryDirectory(dir=_store()) as directory,
        ):
            tree = Path(directory) / "tree"
            include = "--include=ca-certificates"
            run_long(["debootstrap", "--variant=minbase", include, SUITE, tree, *_mirror()], "debootstrap")
            shutil.rmtree(tree / "var" / "cache" / "apt" / "archives", ignore_errors=True)
            _commit(tree)


def file_name(image: str) -> str:
    """Return an image's name as the name of a file."""
    return re.sub(r"[^\w.-]+", "_", image)


def _commit(tree: Path) -> None:
    container = run([*_buildah("from"), "--pull-never", "scratch"]).strip()
    try:
        run_long([*_buildah("add"), "--quiet", container, tree, "/"], "adding Debian")
        run(
            [
                *_buildah("config"),
                "--cmd",
                "bash",
                "--env",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                container,
            ]
        )
        run_long([*_buildah("commit"), "--quiet", container, BASE], "committing Debian")
    finally:
        run([*_buildah("rm"), container])


def _archive(image: str, identity: str) -> Path:
    """Return the image's archive, written unless it is there."""
    archive = _store() / "archives" / f"{file_name(image)}@{identity[:16]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(archive.parent)
        part = archive.with_suffix(".part")
        part.unlink(missing_ok=True)
        run_long(
            [*_buildah("push"), "--quiet", identity, f"docker-archive:{part}:{image}"], f"archiving {image}"
        )
        part.rename(archive)
    archive.touch()
    return archive


def _forget_old(archives: Path) -> None:
    # Not at once: another run may just be about to load what it has built.
    for archive in archives.iterdir():
        if time.time() - archive.stat().st_mtime > KEEP_ARCHIVES:
            archive.unlink()


def _store() -> Path:
    return paths.cache() / "images"


def _buildah(command: str) -> list[str]:
    store = _store()
    store.mkdir(parents=True, exist_ok=True)
    driver = "overlay" if snapshotter(store) == "overlayfs" else "vfs"
    places = ["--root", str(store / "root"), "--runroot", str(store / "run")]
    return ["buildah", "--storage-driver", driver, *places, command]


def _mirror() -> list[str]:
    """Return the mirror that this machine itself uses, if it is a Debian; debootstrap knows one too."""
    if "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return []
    for file in (
        Path("/etc/apt/sources.list"),
        *sorted(Path("/etc/apt/sources.list.d").glob("debian.sources")),
    ):
        if file.exists() and (found := MIRRORS.search(file.read_text())):
            return [found[0]]
    return []


@contextmanager
def _configuration(directory: Path) -> Iterator[list[str]]:
    """Yield mounts by which a build reaches package indexes as this machine does; the image never knows."""
    mounts: list[str] = []
    if AUTHORITIES.exists():
        mounts += ["--volume", f"{AUTHORITIES}:{AUTHORITIES}:ro"]
    pip = directory / "pip.conf"
    pip.write_text(pip_configuration())
    mounts += ["--volume", f"{pip}:/etc/pip.conf:ro"]
    uv = _configuration_home() / "uv" / "uv.toml"
    if uv.exists():
        mounts += ["--volume", f"{uv}:/etc/uv/uv.toml:ro"]
    yield mounts


def _configuration_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def pip_configuration() -> str:
    """Return the machine's pip configuration as one file: its files, then its environment."""
    merged = configparser.RawConfigParser()
    home = _configuration_home()
    named = os.environ.get("PIP_CONFIG_FILE")
    merged.read(
        [
            Path("/etc/pip.conf"),
            Path.home() / ".pip" / "pip.conf",
            home / "pip" / "pip.conf",
            *([named] if named else []),
        ]
    )
    if not merged.has_section("global"):
        merged.add_section("global")
    for key, value in os.environ.items():
        if key.startswith("PIP_") and key != "PIP_CONFIG_FILE":
            merged.set("global", key.removeprefix("PIP_").lower().replace("_", "-"), value)
    if AUTHORITIES.exists():
        merged.set("global", "cert", str(AUTHORITIES))
    # A directory of wheels on this machine is not there in the build.
    merged.remove_option("global", "find-links")
    text = io.StringIO()
    merged.write(text)
    return text.getvalue()
