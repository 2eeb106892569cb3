"""What people import and type: package a fitted pipeline, verify a bundle, serve it, run it on a laptop.

What these functions need comes with ``pip install 'greenroom[toolkit]'``; it is imported on first use, so
that the command and its help stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greenroom.packaging import (
        ExportError,
        FrameError,
        PackagingError,
        ParityError,
        VersionExistsError,
        package,
    )
    from greenroom.verification import SubjectError, UnverifiableError, verify

__all__ = [
    "ExportError",
    "FrameError",
    "PackagingError",
    "ParityError",
    "SubjectError",
    "UnverifiableError",
    "VersionExistsError",
    "package",
    "verify",
]
_VERIFICATION = {"SubjectError", "UnverifiableError", "verify"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    part = "verification" if name in _VERIFICATION else "packaging"
    return getattr(import_module(f"greenroom.{part}"), name)
