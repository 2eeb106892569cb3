"""The accounts: of each prediction, what became of its record.

The request path counts what comes in and what it turns away, on its own thread and without a lock. The log's
threads count the rest under one. Each number has one side that changes it, so nothing is ever lost between
them, and ``pending`` is the difference.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DEPARTED = "_departed"
"""Stands for versions that have left; no version can have this name."""
_MOST_ACCOUNTS = 256
"""Versions times roles that are told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """``logged + dropped + sampled_out + pending`` is the number of predictions."""

    logged: int = 0
    dropped: int = 0
    sampled_out: int = 0
    pending: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sums."""
        return Counts(
            logged=self.logged + other.logged,
            dropped=self.dropped + other.dropped,
            sampled_out=self.sampled_out + other.sampled_out,
            pending=self.pending + other.pending,
        )


class Account:
    """The records of one version in one role."""

    __slots__ = ("dropped", "logged", "refused", "requests", "role", "sampled_out", "stored", "version")

    def __init__(self, version: str, role: str) -> None:
        self.version = version
        self.role = role
        # Changed by the request path alone.
        self.requests = 0
        self.sampled_out = 0
        self.refused = 0
        # Changed by the ledger alone.
        self.stored = 0
        self.logged = 0
        self.dropped = 0


class Ledger:
    """All accounts of one process.

    ``account`` and ``forget`` are the request path's thread's; everything else may be called from any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[tuple[str, str], Account] = {}
        self._departed: list[Account] = []
        self._departed_and_settled: dict[str, Counts] = {}
        self._final = False

    def account(self, version: str, role: str) -> Account:
        """Return the account, a new one where there is none."""
        return self._accounts.get((version, role)) or self._open(version, role)

    def _open(self, version: str, role: str) -> Account:
        account = Account(version, role)
        with self._lock:
            if len(self._accounts) < _MOST_ACCOUNTS:
                self._accounts[version, role] = account
            else:  # whoever serves so many versions at once has forgotten to forget
                account = self._accounts.setdefault((DEPARTED, role), Account(DEPARTED, role))
        return account

    def forget(self, version: str) -> None:
        """Fold a departed version's accounts into one; what is pending of it is counted there later."""
        with self._lock:
            for key in [key for key in self._accounts if key[0] == version]:
                self._departed.append(self._accounts.pop(key))
            waiting = []
            for account in self._departed:
                counts = self._counts(account)
                if counts.pending:
                    waiting.append(account)
                else:
                    before = self._departed_and_settled.get(account.role, Counts())
                    self._departed_and_settled[account.role] = before + counts
            self._departed = waiting

    def logged(self, records: Mapping[Account, int]) -> None:
        """Count records that have arrived for good."""
        self._move(records, logged=1)

    def stored(self, records: Mapping[Account, int]) -> None:
        """Count records that are on the disk and wait to be sent: still pending."""
        self._move(records, stored=1)

    def sent(self, records: Mapping[Account, int]) -> None:
        """Count stored records that the receiver has acknowledged."""
        self._move(records, stored=-1, logged=1)

    def lost(self, records: Mapping[Account, int]) -> None:
        """Count records that never got to the disk."""
        self._move(records, dropped=1)

    def abandoned(self, records: Mapping[Account, int]) -> None:
        """Count stored records that will never be sent."""
        self._move(records, stored=-1, dropped=1)

    def _move(
        self, records: Mapping[Account, int], *, stored: int = 0, logged: int = 0, dropped: int = 0
    ) -> None:
        with self._lock:
            if self._final:
                return
            for account, number in records.items():
                account.stored += stored * number
                account.logged += logged * number
                account.dropped += dropped * number

    def settle(self) -> None:
        """End the accounts: what is on the disk is logged, what is not is dropped, nothing is pending.

        A restart adopts what is on the disk and has not been sent. A thread that is stuck may still come
        to an end; that changes nothing any more.
        """
        with self._lock:
            self._final = True
            for account in self._all():
                account.logged += account.stored
                account.stored = 0

    def counts(self) -> Mapping[tuple[str, str], Counts]:
        """Return the accounts by version and role; departed versions under ``DEPARTED``."""
        with self._lock:
            counts = {key: self._counts(account) for key, account in self._accounts.items()}
            for role, settled in self._departed_and_settled.items():
                counts[DEPARTED, role] = counts.get((DEPARTED, role), Counts()) + settled
            for account in self._departed:
                key = (DEPARTED, account.role)
                counts[key] = counts.get(key, Counts()) + self._counts(account)
        return counts

    def total(self) -> Counts:
        """Return the sum of all accounts."""
        return sum(self.counts().values(), Counts())

    def _counts(self, account: Account) -> Counts:
        # What came in is read last: the request path may count on meanwhile, and pending is never negative.
        logged, dropped, sampled_out = account.logged, account.dropped + account.refused, account.sampled_out
        pending = account.requests - logged - dropped - sampled_out
        if self._final:
            dropped, pending = dropped + pending, 0
        return Counts(logged=logged, dropped=dropped, sampled_out=sampled_out, pending=pending)

    def _all(self) -> Iterator[Account]:
        yield from self._accounts.values()
        yield from self._departed
