"""A leader that never looks at the clock before it writes: what stops it must be the API server.

It appends its letter to a ConfigMap, reading first and writing a moment later with the version that it
read. When its lease turns out to be lost it prints how its last write ended, and ends.
"""

import asyncio
import sys

from greenroom_operator.controller.elector import Elector
from greenroom_operator.errors import Conflict
from greenroom_operator.kube import Kube
from greenroom_operator.metrics import Metrics


async def lead(namespace: str, letter: str) -> None:
    """Compete, then write until the lease is lost."""
    async with await Kube.connect(metrics=Metrics()) as kube:
        elector = Elector(kube, namespace=namespace, name="leader", identity=letter, on_lost=lambda _: None)
        await elector.acquire()
        print("leading", flush=True)  # noqa: T201 - the test waits for it
        hold = asyncio.create_task(elector.hold())
        ending = ""
        while not ending:
            known = await kube.get("ConfigMap", namespace, "log")
            assert known is not None
            print("deciding", flush=True)  # noqa: T201 - the test may freeze it now
            await asyncio.sleep(1)
            manifest = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": namespace, "name": "log"},
                "data": {"log": known["data"]["log"] + letter},
            }
            try:
                await kube.apply(manifest, resource_version=known["metadata"]["resourceVersion"])
                outcome = "accepted"
            except Conflict:
                outcome = "refused"
            ending = "" if elector.valid() else outcome
        print(ending, flush=True)  # noqa: T201
        hold.cancel()


if __name__ == "__main__":
    asyncio.run(lead(sys.argv[1], sys.argv[2]))
