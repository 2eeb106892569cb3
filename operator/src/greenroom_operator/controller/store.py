"""Everything that has been observed: ModelDeployments, what belongs to them, their pods. No I/O.

Bodies that it hands out are the stored ones, not copies: nobody may change them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from greenroom_operator.kinds import MODEL_DEPLOYMENT, POD, Key, key_of

Body = dict[str, Any]

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class _Place(NamedTuple):
    namespace: str
    name: str


class Store:
    """The newest known state of each object, by resource version, whoever tells of it first.

    A watch, a list of our own and the answer to our own write may arrive in any order. What is older than
    what is known is ignored, that of an object known to be deleted included. Resource versions are compared
    as integers: they are etcd's revisions, and comparable across kinds and incarnations.

    Whatever observes returns the keys that are concerned, the former owner of a relabelled object included;
    none when it told nothing new.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[_Place, Body]] = defaultdict(dict)
        self._owned: dict[Key, dict[tuple[str, _Place], Body]] = defaultdict(dict)
        self._deleted: dict[str, dict[_Place, int]] = defaultdict(dict)
        self._listed: dict[str, int] = {}

    def put(self, kind: str, body: Mapping[str, Any]) -> set[Key]:
        """Observe an object as it is.

        ``metadata.managedFields`` and kubectl's copy of the object are not kept: they can dominate memory.
        """
        place, version = _place(body), _version(body)
        if version <= max(self._version_at(kind, place), self._deleted[kind].get(place, 0)):
            return set()
        touched = self._forget(kind, place)
        stored = _slim(kind, body)
        owner = key_of(stored)
        if owner is None:
            self._deleted[kind][place] = version
            return touched
        self._deleted[kind].pop(place, None)
        self._objects[kind][place] = stored
        self._owned[owner][kind, place] = stored
        return touched | {owner}

    def remove(self, kind: str, body: Mapping[str, Any]) -> set[Key]:
        """Observe that an object is gone, or out of the watch's selection."""
        place, version = _place(body), _version(body)
        if self._version_at(kind, place) > version:
            return set()
        self._deleted[kind][place] = max(version, self._deleted[kind].get(place, 0))
        return self._forget(kind, place)

    def absent(self, kind: str, namespace: str, name: str) -> set[Key]:
        """Observe that a read found nothing under a name."""
        place = _Place(namespace, name)
        if known := self._version_at(kind, place):
            self._deleted[kind][place] = known
        return self._forget(kind, place)

    def relist(
        self,
        kind: str,
        items: Sequence[Mapping[str, Any]],
        resource_version: str,
        *,
        namespace: str | None = None,
    ) -> set[Key]:
        """Observe a complete list of a kind (in one namespace, if given), made at ``resource_version``.

        Objects that are known but not in the list, and not newer than it, are gone: a watch that was cut
        tells nobody of those.
        """
        touched: set[Key] = set()
        for body in items:
            touched |= self.put(kind, body)
        listed, present = int(resource_version), {_place(body) for body in items}
        for place, known in list(self._objects[kind].items()):
            elsewhere = namespace is not None and place.namespace != namespace
            if not elsewhere and place not in present and _version(known) <= listed:
                touched |= self._forget(kind, place)
                self._deleted[kind][place] = listed
        self._bury(kind, listed)
        return touched

    def deployment(self, key: Key) -> Body | None:
        """Return the ModelDeployment itself, None when there is none."""
        return self._objects[MODEL_DEPLOYMENT.name].get(_Place(*key))

    def object(self, kind: str, namespace: str, name: str) -> Body | None:
        """Return one observed object of any kind, None when it is not known."""
        return self._objects[kind].get(_Place(namespace, name))

    def children(self, key: Key) -> list[Body]:
        """Return what is labelled to belong to a ModelDeployment, pods aside, in no particular order."""
        return [body for body in self._owned_by(key) if body["kind"] not in (MODEL_DEPLOYMENT.name, POD.name)]

    def pods(self, key: Key) -> list[Body]:
        """Return the pods that are labelled to belong to a ModelDeployment, in no particular order."""
        return [body for body in self._owned_by(key) if body["kind"] == POD.name]

    def keys(self) -> set[Key]:
        """Return every ModelDeployment there is."""
        return {Key(*place) for place in self._objects[MODEL_DEPLOYMENT.name]}

    def _owned_by(self, key: Key) -> list[Body]:
        return list(self._owned[key].values()) if key in self._owned else []

    def _version_at(self, kind: str, place: _Place) -> int:
        known = self._objects[kind].get(place)
        return _version(known) if known is not None else 0

    def _forget(self, kind: str, place: _Place) -> set[Key]:
        known = self._objects[kind].pop(place, None)
        if known is None or (owner := key_of(known)) is None:
            return set()
        del self._owned[owner][kind, place]
        if not self._owned[owner]:
            del self._owned[owner]
        return {owner}

    def _bury(self, kind: str, listed: int) -> None:
        """Forget deletions older than the list before this one: no answer is still on its way from then."""
        oldest = self._listed.get(kind, 0)
        self._deleted[kind] = {place: at for place, at in self._deleted[kind].items() if at > oldest}
        self._listed[kind] = listed


def _place(body: Mapping[str, Any]) -> _Place:
    return _Place(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def _version(body: Mapping[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


def _slim(kind: str, body: Mapping[str, Any]) -> Body:
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != _LAST_APPLIED}
    return {**body, "kind": kind, "metadata": metadata}
