"""Kubernetes' own programs, built from their Go modules and cached by a hash of what they are built from."""

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import debian, paths
from e2e.cluster.locks import lock
from e2e.cluster.model import ClusterError
from e2e.cluster.progress import say, step
from e2e.cluster.shell import run, run_long

KUBERNETES = (1, 34, 4)
Version = tuple[int, ...]
TOOLCHAINS = (1, 21)
"""From this version on Go fetches a newer Go by itself where a module asks for one."""


def _stamp(package: str, **values: object) -> str:
    """Return the linker's flags that set a package's variables."""
    return " ".join(f"-X {package}.{name}={value}" for name, value in values.items())


@dataclass(frozen=True)
class Program:
    """One Go program of ours."""

    module: str
    """The name of its directory."""
    output: str
    about: str
    """How long a build takes on two cores with nothing cached."""
    package: str = "."
    stamp: str = ""
    links: tuple[str, ...] = ()
    sources: Path | None = None
    """Where its directory lies; None for go/ beside this file."""
    files: tuple[str, ...] = ()
    """What the package's own module has to be laid beside the program: paths in it, by their last names."""

    @property
    def source(self) -> Path:
        """Return the directory of its module."""
        return (self.sources or paths.GO_SOURCES) / self.module

    @property
    def flags(self) -> list[str]:
        """Return how it is built."""
        return ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", f"-s -w {self.stamp}".strip()]

    @property
    def key(self) -> str:
        """Return a hash of all that it is built from."""
        digest = hashlib.sha256()
        for file in sorted(self.source.iterdir()):
            digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
        digest.update(repr((self.package, self.flags, self.links, platform.machine(), *self.files)).encode())
        return digest.hexdigest()[:16]


NODE = Program(
    module="node",
    output="kube",
    about="9 min",
    # Without a version in the binary the API server says 0.0, and clients misbehave.
    stamp=_stamp(
        "k8s.io/component-base/version",
        gitVersion=f"v{'.'.join(map(str, KUBERNETES))}",
        gitMajor=KUBERNETES[0],
        gitMinor=KUBERNETES[1],
    ),
    links=(
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ),
)
PAUSE = Program(module="pause", output="pause", about="5 s")
DNS = Program(module="dns", output="coredns", about="1.5 min")
HELM = Program(
    module="helm",
    output="helm",
    about="4 min",
    package="helm.sh/helm/v3/cmd/helm",
    # What `helm template` takes the cluster for when it is not asked.
    stamp=_stamp(
        "helm.sh/helm/v3/pkg/chartutil", k8sVersionMajor=KUBERNETES[0], k8sVersionMinor=KUBERNETES[1]
    ),
)
ALL = (PAUSE, NODE, DNS, HELM)
ARGOCD = Program(
    module="argocd",
    output="argocd",
    about="8 min",
    package="github.com/argoproj/argo-cd/v3/cmd",
    stamp=_stamp("github.com/argoproj/argo-cd/v3/common", version="3.3.9"),
    # It takes the role of the name by which it is called.
    links=("argocd-application-controller", "argocd-repo-server", "argocd-server"),
    files=(
        "manifests/crds/application-crd.yaml",
        "manifests/crds/applicationset-crd.yaml",
        "manifests/crds/appproject-crd.yaml",
        "manifests/base/config/argocd-cm.yaml",
        "manifests/base/config/argocd-rbac-cm.yaml",
        "manifests/base/config/argocd-secret.yaml",
    ),
)
"""No part of a cluster: only the tests in e2e/gitops need it, and take the minutes."""


def build(program: Program) -> Path:
    """Return the directory of the built program and its links, building it if need be."""
    target = paths.cache() / "go" / f"{program.module}-{program.key}"
    if target.exists():
        return target
    with lock(paths.cache() / "locks" / f"go-{program.module}", f"builds {program.output}"):
        if not target.exists():
            _build(program, target)
    return target


def tools(programs: tuple[Program, ...] = ALL) -> Path:
    """Return one directory with links to all of the programs, built if need be."""
    built = [build(program) for program in programs]
    key = hashlib.sha256("".join(map(str, built)).encode()).hexdigest()[:16]
    target = paths.cache() / "bin" / key
    with lock(paths.cache() / "locks" / "bin", "links programs"):
        if not target.exists():
            part = _part(target)
            for file in (file for directory in built for file in directory.iterdir()):
                (part / file.name).symlink_to(file)
            part.rename(target)
    return target


def _build(program: Program, target: Path) -> None:
    env = {"CGO_ENABLED": "0", "GOWORK": "off"} | _toolchain(_required(program.source / "go.mod"))
    part = _part(target)
    try:
        with step(f"building {program.output} from its Go modules", program.about):
            command: list[str | Path] = [
                "go",
                "build",
                *program.flags,
                "-o",
                part / program.output,
                program.package,
            ]
            run_long(command, f"building {program.output}", env=env, cwd=program.source)
        for name in program.links:
            (part / name).symlink_to(program.output)
        for file in _find_files(program, env):
            shutil.copyfile(file, part / file.name)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _find_files(program: Program, env: Mapping[str, str]) -> list[Path]:
    if not program.files:
        return []
    command = ["go", "list", "-mod=readonly", "-f", "{{.Module.Dir}}", program.package]
    module = Path(run(command, env=env, cwd=program.source).strip())
    return [module / file for file in program.files]


def _part(target: Path) -> Path:
    """Return an empty directory that becomes the target once complete; its lock must be held."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _required(go_mod: Path) -> Version:
    found = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{go_mod} names no Go version")
    return version(found[1])


def version(text: str) -> Version:
    """Return the numbers of a version such as `go1.24.4` or `2:1.24~2`."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups(default="0")) if found else (0, 0, 0)


def _toolchain(required: Version) -> dict[str, str]:
    """Return the environment in which `go` is at least the required version."""
    if debian.find("go") is None:
        _install(required)
    present = version(run(["go", "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}, cwd=Path("/")))
    wanted = ".".join(map(str, required))
    if present >= required:
        return {}
    if present < TOOLCHAINS:
        raise ClusterError(
            f"Go {wanted} or later is needed, and `go` on the PATH is too old; install a newer one"
        )
    say(f"Go {wanted} is needed: the `go` on the PATH is older and fetches it as a module")
    return {"GOTOOLCHAIN": "auto"}


def _install(required: Version) -> None:
    wanted = ".".join(map(str, required))
    remedy = f"Go {wanted} or later is needed: put `go` on the PATH, by the package golang-go for instance"
    if os.geteuid() != 0 or debian.find("apt-cache") is None:
        raise ClusterError(remedy)
    candidate = re.search(r"Candidate: (\S+)", run(["apt-cache", "policy", "golang-go"]))
    if candidate is None or version(candidate[1]) < TOOLCHAINS:
        raise ClusterError(f"{remedy}: this distribution's is too old")
    debian.install((debian.Package("golang-go", "go"),))
