"""The entry point of the command ``greenroom``: what must work before anything else is imported."""

import sys

_TOOLKIT = {"typer", "rich", "pandas", "sklearn", "skl2onnx", "onnx"}
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


def main() -> None:
    """Run the command; a missing extra or Ctrl-C end it with one clear line instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no arrow gets a question mark
    try:
        from greenroom.commands import app  # noqa: PLC0415 typer may not be installed

        app(prog_name="greenroom")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TOOLKIT:
            raise
        print(f"greenroom: {error.name} is missing: pip install 'greenroom[toolkit]'", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us is gone; there is nobody left to tell
        raise SystemExit(1) from None
