"""The Git repository that says what runs."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

AUTHOR = {"GIT_AUTHOR_NAME": "A person", "GIT_AUTHOR_EMAIL": "person@example.com"}
COMMITTER = {"GIT_COMMITTER_NAME": "A person", "GIT_COMMITTER_EMAIL": "person@example.com"}
# What the user's or the machine's own configuration says must not matter.
ALONE = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


@dataclass(frozen=True)
class Repository:
    """A repository with one branch, `main`, in a directory of this machine."""

    directory: Path

    @classmethod
    def new(cls, directory: Path) -> "Repository":
        """Make an empty one in a directory that is not there yet."""
        directory.mkdir()
        repository = cls(directory)
        repository("init", "--quiet", "--initial-branch=main")
        return repository

    @property
    def url(self) -> str:
        """Return what an Application names as its source."""
        return self.directory.as_uri()

    @property
    def head(self) -> str:
        """Return the newest commit."""
        return self("rev-parse", "HEAD").strip()

    def read(self, name: str) -> dict[str, Any]:
        """Return a manifest as it is in the newest commit."""
        manifest: dict[str, Any] = yaml.safe_load((self.directory / name).read_text(encoding="utf-8"))
        return manifest

    def commit(self, message: str, files: Mapping[str, Mapping[str, Any]]) -> str:
        """Write these manifests, by file name, commit them, and return the commit."""
        for name, manifest in files.items():
            (self.directory / name).write_text(yaml.safe_dump(dict(manifest)), encoding="utf-8")
        self("add", "--all")
        self("commit", "--quiet", "--message", message)
        return self.head

    def revert(self) -> str:
        """Take back the newest commit by another one, and return that."""
        self("revert", "--no-edit", "HEAD")
        return self.head

    def __call__(self, *arguments: str) -> str:
        """Run git in it and return what it says."""
        env = {**AUTHOR, **COMMITTER, **ALONE, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        command = ["git", "-C", str(self.directory), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
