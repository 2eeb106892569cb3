"""The only module that speaks to the API server."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

import aiohttp
from kubernetes.aio import client, config, dynamic

from greenroom_operator.errors import (
    Conflict,
    Forbidden,
    KubeError,
    NotConfigured,
    NotFound,
    Rejected,
    Unavailable,
)
from greenroom_operator.kinds import EVENT, KINDS, Kind
from greenroom_operator.metrics import Metrics

Body = dict[str, Any]

FIELD_MANAGER: Final = "greenroom"
TOUCH_FIELD_MANAGER: Final = "greenroom-touch"
"""Owns single annotations on objects that are not ours to apply: pods."""

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_PAGE: Final = 500
_CONNECT_TIMEOUT: Final = 3.0
_TIMEOUT: Final = 10.0
_LIST_TIMEOUT: Final = 30.0
_CONNECTIONS: Final = 16
_SUMMARY_LENGTH: Final = 1000

# Server-side apply answers 500 for a manifest whose types are wrong, and will always do so.
_ILL_TYPED: Final = ("failed to create typed patch object", "failed to convert new object")


@dataclass(frozen=True)
class Credentials:
    """How to reach the API server, for a client other than ours; empty where not used."""

    server: str
    ca_path: str
    insecure: bool
    token: str
    certificate_path: str
    private_key_path: str
    proxy_url: str


class Kube:
    """The API server: plain dicts in, plain dicts out, a ``KubeError`` when a call fails.

    Without discovery: what it speaks of is in ``kinds``. Every call has a timeout and is counted.
    """

    def __init__(self, configuration: client.Configuration, *, metrics: Metrics) -> None:
        # trust_env would cost two thread hops and a netrc read per request; a proxy can be in the kubeconfig.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._configuration = configuration
        self._metrics = metrics
        self._api = client.ApiClient(configuration)
        # Never awaited: that is what would discover every kind, with 24 requests and a file.
        self._dynamic = dynamic.DynamicClient(self._api)
        self.writes = 0
        """How many calls that may change something were sent."""

    @classmethod
    async def connect(cls, *, metrics: Metrics) -> Self:
        """Use KUBECONFIG if it is set, else the service account of the pod, else ``~/.kube/config``.

        Raises NotConfigured when none of them is usable. Sends nothing.
        """
        configuration = client.Configuration()
        in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
        try:
            if in_cluster:
                config.load_incluster_config(configuration)
            else:
                # Named, because the library reads the variable only once, when it is imported.
                await config.load_kube_config(
                    config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
                )
        except Exception as error:  # what a file of somebody's can make the loader raise is not documented
            source = "the pod's service account" if in_cluster else "the kubeconfig"
            raise NotConfigured(f"no API server to work with: {source} is not usable: {error}") from error
        return cls(configuration, metrics=metrics)

    async def credentials(self) -> Credentials:
        """Return how this client reaches the API server; the token is read anew when it has been rotated."""
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        return Credentials(
            server=self._configuration.host,
            ca_path=self._configuration.ssl_ca_cert or "",
            insecure=not self._configuration.verify_ssl,
            token=token.partition(" ")[2] if token[:7].lower() == "bearer " else token,
            certificate_path=self._configuration.cert_file or "",
            private_key_path=self._configuration.key_file or "",
            proxy_url=self._configuration.proxy or "",
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def apply(self, manifest: Mapping[str, Any], *, resource_version: str | None = None) -> Body:
        """Server-side apply a whole manifest, taking back its fields from others; return the stored object.

        With ``resource_version`` only if the object still has it, otherwise Conflict.
        """
        return await self._apply("apply", manifest, resource_version=resource_version)

    async def apply_status(self, manifest: Mapping[str, Any], *, resource_version: str | None = None) -> Body:
        """Likewise for the status: of the manifest only its identity and ``status`` are sent."""
        return await self._apply(
            "apply_status",
            {**_identity(manifest), "status": manifest["status"]},
            resource_version=resource_version,
            subresource="status",
        )

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> Body:
        """Set these annotations and nothing else.

        A merge patch: an apply would create an object that has just been deleted.
        """
        return await self._send(
            _Call("annotate", KINDS[kind], namespace, name),
            "patch",
            body={"metadata": {"annotations": dict(annotations)}},
            content_type=_MERGE,
            field_manager=TOUCH_FIELD_MANAGER,
        )

    async def delete(self, body: Mapping[str, Any]) -> None:
        """Delete exactly this object, by its uid, its dependents in the background; gone already is fine.

        Conflict when another object has its name by now.
        """
        metadata = body["metadata"]
        options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        with contextlib.suppress(NotFound):
            await self._send(_call("delete", body), "delete", body=options)

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Create an object; Conflict when its name is taken."""
        return await self._send(_call("create", body), "post", body=dict(body))

    async def replace(self, body: Mapping[str, Any]) -> Body:
        """Replace an object that still has the body's resource version, otherwise Conflict."""
        return await self._send(_call("replace", body), "put", body=dict(body))

    async def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """Read one object; None when there is none."""
        try:
            return await self._send(_Call("get", KINDS[kind], namespace, name), "get")
        except NotFound:
            return None

    async def list(
        self, kind: str, *, namespace: str | None = None, label_selector: str | None = None
    ) -> tuple[list[Body], str]:
        """Read all objects of a kind, in pages; return them and the resource version of the whole list."""
        call = _Call("list", KINDS[kind], namespace, "")
        items: list[Body] = []
        token: str | None = None
        while True:
            page = await self._send(
                call,
                "get",
                label_selector=label_selector,
                limit=_PAGE,
                _continue=token,
                timeout=_LIST_TIMEOUT,
            )
            # The items of a list do not say what they are.
            items += [{**item, "apiVersion": call.kind.api_version, "kind": kind} for item in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    async def check(
        self, kind: str, *, namespace: str | None = None, label_selector: str | None = None
    ) -> None:
        """Raise what a list of this kind would raise, at the cost of one object."""
        await self._send(
            _Call("list", KINDS[kind], namespace, ""), "get", label_selector=label_selector, limit=1
        )

    async def emit(self, event: Mapping[str, Any]) -> None:
        """Post an Event, or count it up when one of its name exists already."""
        try:
            await self.create(event)
        except Conflict:
            metadata = event["metadata"]
            known = await self.get(EVENT.name, metadata["namespace"], metadata["name"])
            if known is None:
                return  # it expired just now; the next transition posts it anew
            again = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": event["lastTimestamp"]}
            await self._send(_call("patch", event), "patch", body=again, content_type=_MERGE)

    async def _apply(
        self,
        verb: str,
        manifest: Mapping[str, Any],
        *,
        resource_version: str | None,
        subresource: str = "",
    ) -> Body:
        body = dict(manifest)
        if resource_version is not None:
            body["metadata"] = {**body["metadata"], "resourceVersion": resource_version}
        return await self._send(
            _call(verb, manifest),
            "patch",
            body=body,
            subresource=subresource,
            content_type=_APPLY,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
        )

    async def _send(
        self,
        call: "_Call",
        method: str,
        *,
        body: Body | None = None,
        subresource: str = "",
        **parameters: Any,
    ) -> Body:
        name = "" if method == "post" else call.name
        if method != "get":
            self.writes += 1
        code = 0
        try:
            response = await self._dynamic.request(
                method,
                call.kind.path(call.namespace, name, subresource),
                body=body,
                serialize=False,
                _request_timeout=aiohttp.ClientTimeout(
                    total=_LIST_TIMEOUT if call.verb == "list" else _TIMEOUT, sock_connect=_CONNECT_TIMEOUT
                ),
                **parameters,
            )
            code = response.status
            document: Body = await response.json()
        except client.ApiException as error:
            code = error.status
            raise _refusal(call, error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise call.failed(Unavailable, 0, f"{type(error).__name__}: {error}".rstrip(": ")) from error
        finally:
            self._metrics.api_calls.labels(verb=call.verb, kind=call.kind.name, code=str(code)).inc()
        return document


@dataclass(frozen=True)
class _Call:
    verb: str
    kind: Kind
    namespace: str | None
    name: str

    def failed(self, error: type[KubeError], code: int, summary: str) -> KubeError:
        line = " ".join(summary.split())[:_SUMMARY_LENGTH]
        return error(
            verb=self.verb,
            kind=self.kind.name,
            namespace=self.namespace or "",
            name=self.name,
            code=code,
            summary=line,
        )


def _call(verb: str, body: Mapping[str, Any]) -> _Call:
    metadata = body["metadata"]
    return _Call(verb, KINDS[body["kind"]], metadata["namespace"], metadata["name"])


def _refusal(call: _Call, error: client.ApiException) -> KubeError:
    summary = _summary(error)
    return call.failed(_meaning(error.status, summary), error.status, summary)


def _meaning(code: int, summary: str) -> type[KubeError]:
    known: dict[int, type[KubeError]] = {
        HTTPStatus.UNAUTHORIZED: Forbidden,
        HTTPStatus.FORBIDDEN: Forbidden,
        HTTPStatus.NOT_FOUND: NotFound,
        HTTPStatus.CONFLICT: Conflict,
        HTTPStatus.REQUEST_TIMEOUT: Unavailable,
        HTTPStatus.GONE: Unavailable,  # a list that took too long to page through
        HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
    }
    if code in known:
        return known[code]
    if code < HTTPStatus.INTERNAL_SERVER_ERROR or any(text in summary for text in _ILL_TYPED):
        return Rejected
    return Unavailable


def _summary(error: client.ApiException) -> str:
    """Return the message of the Status object that refusals come with; a proxy may answer with anything."""
    text = error.body or error.reason or ""
    try:
        message = json.loads(text)["message"]
    except (ValueError, TypeError, LookupError):
        return str(text)
    return str(message)


def _identity(manifest: Mapping[str, Any]) -> Body:
    metadata = manifest["metadata"]
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
