"""What kubectl asks while somebody types ``kubectl greenroom …`` and presses Tab.

kubectl looks for a program ``kubectl_complete-greenroom`` and gives it the words, the last one unfinished. It
reads one completion a line, with its description behind a tab, and then what the shell is to do besides: as
cobra's own programs tell it.
"""

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from typing import Final

_FILES: Final = ":0"
"""cobra's ShellCompDirectiveDefault: the shell offers files where there is nothing else."""
_NO_FILES: Final = ":4"
"""ShellCompDirectiveNoFileComp."""
_VARIABLE: Final = "_GREENROOM_COMPLETE"


def main() -> None:
    """Print what may stand in the place of the last word; nothing at all, and 1, where that cannot be told.

    A person is in the middle of a line: a message would be printed into it.
    """
    try:
        told = complete(sys.argv[1:])
    except Exception:  # noqa: BLE001 whatever it is, the command itself will tell it
        raise SystemExit(1) from None
    sys.stdout.write(told)


def complete(words: Sequence[str]) -> str:
    """Return cobra's text of the completions of the last word.

    Typer finds them; of the forms in which it tells them, fish's is cobra's.
    """
    from greenroom.commands import app  # noqa: PLC0415 typer may not be installed

    name = "kubectl greenroom"
    os.environ |= {
        _VARIABLE: "complete_fish",
        "_TYPER_COMPLETE_ARGS": shlex.join(["greenroom", *(words or [""])]),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    told = io.StringIO()
    with redirect_stdout(told), suppress(SystemExit):
        app(prog_name=name, complete_var=_VARIABLE)
    found = [line for line in told.getvalue().splitlines() if line.strip()]
    return "\n".join([*found, _NO_FILES if found else _FILES]) + "\n"
