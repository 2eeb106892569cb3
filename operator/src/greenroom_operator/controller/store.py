"""Everything that has been observed: ModelDeployments, what belongs to them, their pods. No I/O.

Bodies that it hands out are the stored ones, not copies: nobody may change them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from greenroom_operator.kinds import MODEL_DEPLOYMENT, POD, Key, key_of

Body = dict[str, Any]

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_NOTHING: Final[Body] = {}


class _Place(NamedTuple):
    namespace: str
    name: str


class Store:
    """The newest known state of each object, by resource version, whoever tells of it first.

    A watch, a list of our own and the answer to our own write may arrive in any order. What is older than what is
    known is ignored, that of an object known to be deleted included. Resource versions are compared as
    integers: they are etcd's revisions, and comparable across kinds and incarnations.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[_Place, Body]] = defaultdict(dict)
        self._owned: dict[Key, dict[tuple[str, _Place], Body]] = defaultdict(dict)
        self._deleted: dict[str, dict[_Place, int]] = defaultdict(dict)
        self._listed: dict[str, int] = {}

    def put(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Observe an object; False when it says nothing new.

        ``metadata.managedFields`` and kubectl's copy of the object are not kept: they can dominate memory.
        """
        place, version = _place(body), _version(body)
        if version <= max(self._version_at(kind, place), self._deleted[kind].get(place, 0)):
            return False
        self._deleted[kind].pop(place, None)
        self._forget(kind, place)
        stored = _slim(kind, body)
        self._objects[kind][place] = stored
        if (owner := key_of(stored)) is not None:
            self._owned[owner][kind, place] = stored
        return True

    def remove(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Observe that an object is gone; False when a newer one of its name is known, or nothing was."""
        place, version = _place(body), _version(body)
        known = self._version_at(kind, place)
        if known > version:
            return False
        self._deleted[kind][place] = max(version, self._deleted[kind].get(place, 0))
        self._forget(kind, place)
        return known > 0

    def absent(self, kind: str, namespace: str, name: str) -> bool:
        """Observe that a read found nothing under a name; False when nothing was known."""
        place = _Place(namespace, name)
        known = self._version_at(kind, place)
        if known:
            self._deleted[kind][place] = known
            self._forget(kind, place)
        return known > 0

    def relist(
        self,
        kind: str,
        items: Sequence[Mapping[str, Any]],
        resource_version: str,
        *,
        namespace: str | None = None,
    ) -> set[Key]:
        """Observe a complete list of a kind (in one namespace, if given), made at ``resource_version``.

        Objects that are known but not in the list, and not newer than it, are gone: a watch that was cut tells
        nobody of those. Returns the keys of all that changed.
        """
        touched = {key_of(body) for body in items if self.put(kind, body)}
        listed, present = int(resource_version), {_place(body) for body in items}
        for place, known in list(self._objects[kind].items()):
            elsewhere = namespace is not None and place.namespace != namespace
            if not elsewhere and place not in present and _version(known) <= listed:
                touched.add(key_of(known))
                self._forget(kind, place)
                self._deleted[kind][place] = listed
        self._bury(kind, listed)
        return touched - {None}  # type: ignore[return-value]

    def deployment(self, key: Key) -> Body | None:
        """Return the ModelDeployment itself, None when there is none."""
        return self._objects[MODEL_DEPLOYMENT.name].get(_Place(*key))

    def object(self, kind: str, namespace: str, name: str) -> Body | None:
        """Return one observed object of any kind, None when it is not known."""
        return self._objects[kind].get(_Place(namespace, name))

    def children(self, key: Key) -> list[Body]:
        """Return what is labelled to belong to a ModelDeployment, pods aside, in no particular order."""
        owned = self._owned.get(key, _NOTHING)
        return [body for (kind, _), body in owned.items() if kind not in (MODEL_DEPLOYMENT.name, POD.name)]

    def pods(self, key: Key) -> list[Body]:
        """Return the pods that are labelled to belong to a ModelDeployment, in no particular order."""
        return [body for (kind, _), body in self._owned.get(key, _NOTHING).items() if kind == POD.name]

    def keys(self) -> set[Key]:
        """Return every ModelDeployment there is."""
        return {Key(*place) for place in self._objects[MODEL_DEPLOYMENT.name]}

    def _version_at(self, kind: str, place: _Place) -> int:
        known = self._objects[kind].get(place)
        return _version(known) if known is not None else 0

    def _forget(self, kind: str, place: _Place) -> None:
        known = self._objects[kind].pop(place, None)
        if known is None or (owner := key_of(known)) is None:
            return
        self._owned[owner].pop((kind, place), None)
        if not self._owned[owner]:
            del self._owned[owner]

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
