"""Shadow processes that do one wrong thing: ``python misbehaving.py WHAT [ARGUMENT]``."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_TELL, _RESUME = 3, 4
_CHUNK = 4 * 1024 * 1024


def tell(**process: object) -> None:
    """Tell the supervisor, as a shadow process does."""
    os.write(_TELL, json.dumps({"process": process, "metrics": "told 1\n"}).encode() + b"\n")


def tell_patience(seconds: float) -> None:
    """Ask the supervisor for so many seconds of silence."""
    os.write(_TELL, json.dumps({"process": {}, "patience": seconds}).encode() + b"\n")


def beat() -> None:
    """Tell for ever that all is well."""
    while True:
        tell(epoch="beating")
        time.sleep(0.02)


def hoard(most: int = 2**40) -> None:
    """Take ever more memory, up to so much, and use it."""
    kept: list[bytes] = []
    while len(kept) * _CHUNK < most:
        kept.append(b"x" * _CHUNK)
        time.sleep(0.002)


def leave_child(what: str) -> "subprocess.Popen[bytes]":
    """Start another process that has nothing to do with this one's group or session."""
    return subprocess.Popen([sys.executable, __file__, what], start_new_session=True)


def main() -> None:  # noqa: C901, PLR0912, PLR0915 one case for each wrong thing
    """Do the wrong thing."""
    what = sys.argv[1]
    match what:
        case "well":
            beat()
        case "resume":  # tells what the one before had told, and one more
            with os.fdopen(_RESUME, "rb") as file:
                content = file.read()
            before = json.loads(content)["number"] if content else 0
            tell(number=before + 1)
            sys.exit(3)
        case "exit":
            sys.exit(int(sys.argv[2]))
        case "signal":
            tell(epoch="doomed")
            os.kill(os.getpid(), int(sys.argv[2]))
        case "raise":
            raise RuntimeError("what a model may do")
        case "hang":
            tell(epoch="hanging")
            signal.pause()
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            beat()
        case "patient":
            tell_patience(float(sys.argv[2]))
            signal.pause()
        case "silent":
            signal.pause()
        case "garbage":
            while True:
                os.write(_TELL, b"\x00\xff{]\n" + b"[1]\n" + b'{"process":[]}\n' + b"x" * 1000)
                time.sleep(0.01)
        case "endless":  # a line that never ends
            while True:
                os.write(_TELL, b"x" * 65536)
        case "flood":
            while True:
                sys.stderr.write("y" * 65536 + "\n")
                tell(epoch="flooding")
        case "close":
            tell(epoch="closing")
            os.close(_TELL)
            signal.pause()
        case "hoard":
            tell(epoch="hoarding")
            hoard()
        case "store":  # fills a file in memory, which is nobody's
            beating = threading.Thread(target=beat, daemon=True)
            beating.start()
            with Path(sys.argv[2]).open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * _CHUNK)
                    time.sleep(0.02)
        case "delegate":  # a grandchild takes the memory
            other = leave_child("hoard-quietly")
            Path(sys.argv[2]).write_text(str(other.pid))
            beat()
        case "hoard-quietly":
            hoard()
        case "orphan":  # leaves a process behind, and ends
            other = leave_child("silent")
            Path(sys.argv[2]).write_text(str(other.pid))
            sys.exit(5)


if __name__ == "__main__":
    main()
