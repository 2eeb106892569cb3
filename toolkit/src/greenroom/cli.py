"""The entry point of the command ``greenroom``: what must work before anything else is imported."""

import signal
import sys
from pathlib import Path
from types import FrameType

from greenroom.errors import CommandError

_TOOLKIT = {"typer", "rich", "pandas", "sklearn", "skl2onnx", "onnx", "onnxmltools", "duckdb"}
_RUNTIME = {"numpy", "onnxruntime", "obstore", "mmh3", "orjson", "aiohttp", "starlette"}
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""
_PLUGIN = "kubectl-greenroom"
"""The name under which kubectl finds the command, as ``kubectl greenroom``."""


def main() -> None:
    """Run the command; what is wrong, a missing extra or Ctrl-C end it with one clear line, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no arrow gets a question mark
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # else somebody, such as nohup, has other plans
            signal.signal(number, _leave)
    as_plugin = Path(sys.argv[0]).name == _PLUGIN
    try:
        from greenroom.commands import app  # noqa: PLC0415 typer may not be installed

        app(prog_name="kubectl greenroom" if as_plugin else "greenroom", complete_var="_GREENROOM_COMPLETE")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TOOLKIT | _RUNTIME:
            raise
        _end(f"{error.name} is missing: pip install 'greenroom[toolkit]'", code=1)
    except CommandError as error:
        _end(str(error), code=error.exit_code)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us is gone; there is nobody left to tell
        raise SystemExit(1) from None


def _leave(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that no process and no temporary file is left behind."""
    raise SystemExit(128 + number)


def _end(message: str, *, code: int) -> None:
    print(f"greenroom: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(code)
