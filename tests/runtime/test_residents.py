"""The order of preparations, in this process."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from greenroom_runtime.contract.config import Proof
from greenroom_runtime.models.batching import Batcher
from greenroom_runtime.models.residents import Residents
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import FileStat
from greenroom_runtime.models.store import BundleStore
from tests.support.serving import DEADLINE_SECONDS, flags


class Stubborn:
    """A source that never answers, and takes its time to be given up."""

    uri = "s3://models"

    def __init__(self) -> None:
        self.asked, self.given_up = asyncio.Event(), asyncio.Event()

    async def stat(self, version: str, path: str) -> FileStat:
        """Wait until cancelled, and then a second time."""
        assert version, path
        self.asked.set()
        try:
            await asyncio.Future()
        finally:
            self.given_up.set()
            await asyncio.Future()
        raise AssertionError

    def stream(self, version: str, path: str, *, start: int, begun: FileStat) -> AsyncGenerator[bytes, None]:
        """Never be asked."""
        raise AssertionError(version, path, start, begun)


def _load_nothing(version: str, session: ModelSession, row_seconds: float) -> Batcher:
    raise AssertionError(version, session, row_seconds)


async def test_an_end_is_heard_while_a_preparation_is_given_up(tmp_path: Path) -> None:
    """SIGTERM in the moment in which a version leaves ends the process all the same."""
    source = Stubborn()
    store = BundleStore(tmp_path, source=source)
    residents = Residents(
        store=store,
        proof=Proof(),
        pod="pod-0",
        clock=lambda: 0.0,
        chance=lambda: 0.0,
        batcher=_load_nothing,
    )
    running = asyncio.create_task(residents.run())
    residents.obey(flags("v1"))
    await source.asked.wait()
    residents.obey(flags("v2"))
    await source.given_up.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=DEADLINE_SECONDS)
    assert running.cancelled()
    store.close()
