"""What people import and type: package a fitted pipeline, serve it, run a ModelDeployment on a laptop.

``greenroom.package`` needs ``pip install 'greenroom[toolkit]'``; it is imported on first use, so that
the command and its help stay quick.
"""

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

__all__ = ["ExportError", "FrameError", "PackagingError", "ParityError", "VersionExistsError", "package"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from greenroom import packaging  # noqa: PLC0415 pandas and scikit-learn take a second to import

        return getattr(packaging, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
