import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster import debian, golang, images, paths, providers
from e2e.cluster.existing import Existing
from e2e.cluster.kind import Kind
from e2e.cluster.model import ClusterError


def test_kubeconfig_in_the_environment_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG may point to somebody's production: by itself it never makes tests run there."""
    monkeypatch.setenv("KUBECONFIG", "/somewhere/production")
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(Kind, "usable", classmethod(lambda _cls: False))
    assert providers.provider() == "embedded"


def test_kind_is_first_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a choice kind is taken where it works."""
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(Kind, "usable", classmethod(lambda _cls: True))
    assert providers.provider() == "kind"


def test_unknown_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt choice is an error that names the choices, not a silent default."""
    monkeypatch.setenv("CLUSTER", "kinf")
    with pytest.raises(ClusterError, match="kubeconfig, kind or embedded"):
        providers.provider()


def test_existing_cluster_needs_its_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CLUSTER=kubeconfig without the file says which file is missing."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ClusterError, match="missing"):
        Existing.named_by_environment()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("go1.24.4", (1, 24, 4)), ("go1.26", (1, 26, 0)), ("2:1.19~1", (1, 19, 0)), ("devel", (0, 0, 0))],
)
def test_go_versions(text: str, expected: tuple[int, ...]) -> None:
    """Versions of Go and of its Debian package are read alike."""
    assert golang.version(text) == expected


def test_every_program_names_the_go_that_it_needs() -> None:
    """Each module's go.mod names a Go version, which no module needs to be newer than 1.26."""
    for program in golang.ALL:
        required = golang._required(program.source / "go.mod")
        assert (1, 24) <= required < (1, 27)


@pytest.mark.parametrize(
    ("present", "environment"),
    [
        ("go1.26.1", {}),
        ("go1.25.0", {}),
        ("go1.24.4", {"GOTOOLCHAIN": "auto"}),
        ("go1.21.0", {"GOTOOLCHAIN": "auto"}),
    ],
)
def test_older_go_fetches_a_newer_one(
    monkeypatch: pytest.MonkeyPatch, present: str, environment: dict[str, str]
) -> None:
    """A Go that is too old for a module, but knows how to, is told to fetch the one that is needed."""
    monkeypatch.setattr(debian, "find", lambda _program: "/usr/bin/go")
    monkeypatch.setattr(golang, "run", lambda *_words, **_options: present)
    assert golang._toolchain((1, 25, 0)) == environment


def test_go_that_cannot_fetch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Go from before toolchains were modules is refused, with the version that is needed."""
    monkeypatch.setattr(debian, "find", lambda _program: "/usr/bin/go")
    monkeypatch.setattr(golang, "run", lambda *_words, **_options: "go1.19.8")
    with pytest.raises(ClusterError, match=r"Go 1\.25\.0 or later is needed"):
        golang._toolchain((1, 25, 0))


def test_missing_go_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Go, and without the right to install it, the error says what to install."""
    monkeypatch.setattr(debian, "find", lambda _program: None)
    with pytest.raises(ClusterError, match="golang-go"):
        golang._toolchain((1, 24, 0))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where packages cannot be installed, the error names the ones that are missing, and only those."""
    present = {package.program for package in debian.NODE} - {"runc", "conntrack"}
    monkeypatch.setattr(debian, "find", lambda program: program if program in present else None)
    monkeypatch.setattr(debian, "CNI_DIRECTORIES", ())
    with pytest.raises(ClusterError, match=r"packages: runc conntrack containernetworking-plugins$"):
        debian.install(debian.NODE)


def test_key_changes_with_sources_and_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A built program is found again only if nothing that it is built from has changed."""
    shutil.copytree(paths.GO_SOURCES / "pause", tmp_path / "pause")
    original = golang.PAUSE.key
    monkeypatch.setattr(paths, "GO_SOURCES", tmp_path)
    assert golang.PAUSE.key == original
    assert replace(golang.PAUSE, stamp="-X main.x=y").key != original
    (tmp_path / "pause" / "main.go").write_text("package main\n")
    assert golang.PAUSE.key != original


def test_built_program_is_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is in the cache is used without Go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    built = tmp_path / "greenroom" / "go" / f"pause-{golang.PAUSE.key}"
    built.mkdir(parents=True)
    assert golang.build(golang.PAUSE) == built


def test_tools_are_links_in_one_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The programs of several modules lie side by side for a PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for program in (golang.PAUSE, golang.HELM):
        built = tmp_path / "greenroom" / "go" / f"{program.module}-{program.key}"
        built.mkdir(parents=True)
        (built / program.output).touch()
    tools = golang.tools((golang.PAUSE, golang.HELM))
    assert {file.name for file in tools.iterdir()} == {"pause", "helm"}
    assert golang.tools((golang.PAUSE, golang.HELM)) == tools


def test_builds_see_the_machines_pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files and environment become one configuration; the environment has the last word."""
    for name in ("PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "pip.conf").write_text("[global]\ntimeout = 5\nretries = 7\n")
    monkeypatch.setenv("PIP_TIMEOUT", "99")
    lines = images.pip_configuration().splitlines()
    assert "timeout = 99" in lines
    assert "retries = 7" in lines


def test_builds_do_not_look_for_this_machines_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of wheels on this machine is not offered to a build that cannot see it."""
    monkeypatch.setenv("PIP_FIND_LINKS", "/somewhere/wheels")
    assert "wheels" not in images.pip_configuration()


def test_image_names_as_file_names() -> None:
    """An image's name becomes one file name."""
    assert images.file_name("localhost/greenroom/operator:dev") == "localhost_greenroom_operator_dev"
