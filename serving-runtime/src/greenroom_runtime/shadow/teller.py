"""Tells the supervisor, through a pipe, without ever waiting for it."""

import os
from contextlib import suppress

import orjson

from greenroom_runtime.contract.shadow import ProcessReport


class SupervisorGoneError(Exception):
    """Nobody reads what the process tells."""


class Teller:
    """Writes whole lines; while one is not read yet, newer ones are left out."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        os.set_blocking(descriptor, False)

    def tell(self, report: ProcessReport, *, metrics: str | None, patience: float = 0.0) -> None:
        """Tell the report, the metrics where there are some, and how long nothing may follow.

        SupervisorGoneError where nobody listens.
        """
        if not self._rest:
            told = {"process": report.model_dump(mode="json"), "metrics": metrics, "patience": patience}
            self._rest = orjson.dumps(told) + b"\n"
        try:
            with suppress(BlockingIOError):
                while self._rest:
                    self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except OSError as error:
            raise SupervisorGoneError(str(error)) from error
