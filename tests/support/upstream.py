"""A real HTTP service that computes features, with faults to order."""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.threaded import loop_thread


@dataclass(kw_only=True)
class FeatureService:
    """A service that is up. What it knows and what is wrong with it may be changed while it runs."""

    features: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By entity; one that is not here is a 404, or missing in a list."""
    everyone: Mapping[str, Any] | None = None
    """What it says of entities that are not in ``features``."""
    port: int = 0
    asked: list[list[str]] = field(default_factory=list)
    """The entities of each call, in order."""
    headers_seen: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Of each call, as it was on the wire."""
    delay_seconds: float = 0.0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    failures: int | None = None
    """How many calls get ``status``; None for all."""
    body: bytes | None = None
    """Sent instead of an answer."""
    drip_seconds: float = 0.0
    """The pause after each byte of an answer."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def known(self, entity: str) -> Mapping[str, Any] | None:
        """Return what it knows of an entity."""
        return self.features.get(entity, self.everyone)

    async def one(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET for one entity."""
        entity = request.match_info["entity"]
        if fault := await self._fault(request, [entity]):
            return fault
        known = self.known(entity)
        return web.json_response(known) if known is not None else web.Response(status=404)

    async def many(self, request: web.Request) -> web.StreamResponse:
        """Answer a POST of many entities."""
        entities = (await request.json())["entities"]
        if fault := await self._fault(request, entities):
            return fault
        return web.json_response({"features": {entity: self.known(entity) for entity in entities}})

    async def feast(self, request: web.Request) -> web.StreamResponse:
        """Answer as Feast's feature server does."""
        document = await request.json()
        ((key, entities),) = document["entities"].items()
        if fault := await self._fault(request, entities):
            return fault
        told = [self.known(entity) or {} for entity in entities]
        names = sorted({name for one in told for name in one})
        results = [{"values": entities, "statuses": ["PRESENT"] * len(entities)}]
        for name in names:
            statuses = ["NOT_FOUND" if name not in one else _status(one[name]) for one in told]
            results.append({"values": [one.get(name) for one in told], "statuses": statuses})
        return web.json_response({"metadata": {"feature_names": [key, *names]}, "results": results})

    async def _fault(self, request: web.Request, entities: list[str]) -> web.StreamResponse | None:
        self.asked.append(entities)
        self.paths.append(request.raw_path)
        self.headers_seen.append(dict(request.headers))
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.drip_seconds:
            return await self._drip(request)
        if self.failures is not None and self.failures <= 0:
            return None
        if self.status != 200 or self.body is not None:
            if self.failures is not None:
                self.failures -= 1
            return web.Response(status=self.status, headers=self.headers, body=self.body or b"")
        return None

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(self.drip_seconds)


def _status(value: object) -> str:
    return "NULL_VALUE" if value is None else "PRESENT"


@contextmanager
def feature_service(*, port: int = 0, tls: Path | None = None, **settings: Any) -> Iterator[FeatureService]:
    """Run a service until the block ends: ``/one/{entity}``, ``/many``, ``/get-online-features``.

    Over TLS with a file of certificate and key.
    """
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    service = FeatureService(**settings)
    application = web.Application()
    application.router.add_get("/one/{entity}", service.one)
    application.router.add_post("/many", service.many)
    application.router.add_post("/get-online-features", service.feast)
    with loop_thread() as thread:
        runner = web.AppRunner(application, access_log=None)
        thread.run(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        thread.run(site.start())
        service.port = runner.addresses[0][1]
        yield service
        thread.run(site.stop())
