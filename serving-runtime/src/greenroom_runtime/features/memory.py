"""The first layer: what this process has seen lately, bounded in number and bytes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from greenroom_runtime.features.entry import Entry

_ENTRY_BYTES: Final = 400
"""The entry itself, its dictionary and its place among the others."""
_FEATURE_BYTES: Final = 100
"""A feature's place in the dictionary, its value as an object, and its share of the name."""


def estimate_bytes(entity: str, *, features: int, encoded: int) -> int:
    """Return about what an entry takes; ``encoded`` is its length as JSON."""
    return _ENTRY_BYTES + 4 * len(entity) + _FEATURE_BYTES * features + 2 * encoded


@dataclass(kw_only=True)
class Memory:
    """Entries by entity; the one that was wanted longest ago makes room."""

    max_entries: int
    max_bytes: int
    max_entry_bytes: int
    """A larger one is not kept: it would push out all the others."""
    keep_seconds: float
    """How long after it has expired an entry may still be of use."""
    clock: Callable[[], float]
    bytes: int = 0
    evicted: int = 0
    """Entries that had to make room."""
    oversized: int = 0
    """Entries that were too large to be kept."""
    _entries: "OrderedDict[str, Entry]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, entity: str) -> Entry | None:
        """Return what is kept of an entity, expired or not."""
        entry = self._entries.get(entity)
        if entry is not None:
            self._entries.move_to_end(entity)
        return entry

    def get_kept(self, entity: str) -> Entry | None:
        """Return what is kept of an entity and still of use, expired or not; what is not is forgotten."""
        entry = self.get(entity)
        if entry is not None and self.clock() >= entry.expires + self.keep_seconds:
            self.drop(entity)
            return None
        return entry

    def put(self, entity: str, entry: Entry) -> None:
        """Keep an entry in place of the one before."""
        self.drop(entity)
        if entry.size > self.max_entry_bytes:
            self.oversized += 1
            return
        self._entries[entity] = entry
        self.bytes += entry.size
        while len(self._entries) > self.max_entries or self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.size
            self.evicted += 1

    def drop(self, entity: str) -> None:
        """Forget an entity, where it is known."""
        entry = self._entries.pop(entity, None)
        if entry is not None:
            self.bytes -= entry.size
