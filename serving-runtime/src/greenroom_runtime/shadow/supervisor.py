"""Keeps a shadow process alive, and the container whatever that process does.

Kubernetes counts every container for a pod's readiness: one that ends, for whatever reason, takes the pod out
of the Service for a second at least. So the first process of the shadow's container is this one, which does
little that can fail: it starts the shadow process, looks after its memory and its heart, tells what it told,
and starts the next one when it has ended.
"""

import ctypes
import json
import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from greenroom_runtime.contract import names
from greenroom_runtime.shadow import ends
from greenroom_runtime.shadow.child import Child, parse_told, read, start
from greenroom_runtime.shadow.ends import Backoff, End, Ended, Verdict, explain
from greenroom_runtime.shadow.memory import Bounds, Cgroup, descendants, resident_bytes
from greenroom_runtime.shadow.told import tell, write_if_read

SCHEMA_VERSION: Final = 1
"""Of the report: ``contract.shadow.SCHEMA_VERSION``."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_MIB: Final = 2**20
_PASSED_ON_A_SECOND: Final = 64 * 1024
"""Bytes of a process's stderr that go into the container's log."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """All intervals, in seconds."""

    poll: float = 0.05
    """Between two looks at the memory of the process and of what it has started."""
    container: float = 1.0
    """Between two looks at the container's."""
    heart: float = 10.0
    """How long a process may tell nothing."""
    first_heart: float = 60.0
    """The same before it has told anything: imports take long on a node that is busy."""
    longest_heart: float = 600.0
    """The most that a process may ask for, which loads a large model."""
    end: float = 8.0
    """How long it has to end in order, its prediction log to flush."""
    first_wait: float = 0.5
    """Before the next process."""
    longest_wait: float = 10.0
    proven: float = 30.0
    """How long a process lives before the next wait is the first one again."""
    defect: float = 0.5
    """The wait after an exception of the supervisor's own."""


class Supervisor:
    """Starts one process after the other; belongs to the main thread, but for what it tells."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        pod: str,
        model: str,
        instance: str,
        environment: Mapping[str, str],
        bounds: Bounds,
        cgroup: Cgroup | None,
        pace: Pace = Pace(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``instance`` names this life of the supervisor, ``environment`` is what the process gets."""
        self._command = command
        self._identity = {"schema_version": SCHEMA_VERSION, "pod": pod, "model": model, "instance": instance}
        self._environment = environment
        self._bounds = bounds
        # One whose limit is not the container's counts others' memory, too.
        own = cgroup is not None and (cgroup.limit() or 2**63) <= (bounds.limit_bytes or 0)
        self._container = cgroup if own else None
        self._cgroup = cgroup
        self._pace = pace
        self._clock = clock
        self._backoff = Backoff(first=pace.first_wait, longest=pace.longest_wait, proven=pace.proven)
        self._selector = selectors.DefaultSelector()
        self._child: Child | None = None
        self._not_before = self._next_look = self._next_container = 0.0
        self._end_by: float | None = None
        self._passed_on = self._passed_on_since = 0.0
        self._process: dict[str, Any] | None = None
        self._metrics = ""
        self._ends: Counter[str] = Counter(dict.fromkeys(ends.REASONS, 0))
        self._end: End | None = None
        self._resident = 0

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT, end the process in order, and return 0."""
        # What a process leaves behind becomes ours, also where this is no container's first process.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        waking, wake = os.pipe()
        for descriptor in (waking, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._selector.register(waking, selectors.EVENT_READ)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes the loop
        self._refuse_what_cannot_be()
        while self._end_by is None or self._child is not None:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 its own death would be the pod's
                tell("a defect of the supervisor", level="error", error=repr(error))
                time.sleep(self._pace.defect)
        self._kill_leftovers()
        tell("ended")
        return 0

    def stop(self) -> None:
        """Let the process end in order, and then ``run``."""
        if self._end_by is None:
            self._end_by = self._clock() + self._pace.end

    def report(self) -> bytes:
        """Return what the operator is told, as JSON. May be called from any thread."""
        end = self._end
        told = {
            **self._identity,
            "running": self._child is not None,
            "ends": sum(self._ends.values()),
            "end": None,
            "process": self._process,
        }
        if end is not None:
            ago = max(0.0, self._clock() - end.at)
            told["end"] = {"reason": end.reason, "message": end.message, "seconds_ago": round(ago, 3)}
        return json.dumps(told).encode()

    def metrics(self) -> bytes:
        """Return what Prometheus scrapes: what the process told last, and the supervisor's own lines.

        May be called from any thread.
        """
        lines = [
            "# HELP greenroom_shadow_running Whether there is a shadow process.",
            "# TYPE greenroom_shadow_running gauge",
            f"greenroom_shadow_running {int(self._child is not None)}",
            "# HELP greenroom_shadow_ends_total Shadow processes that ended and should not have.",
            "# TYPE greenroom_shadow_ends_total counter",
            *(
                f'greenroom_shadow_ends_total{{reason="{reason}"}} {count}'
                for reason, count in self._ends.items()
            ),
            "# HELP greenroom_shadow_resident_bytes Memory of the shadow process and of what it started.",
            "# TYPE greenroom_shadow_resident_bytes gauge",
            f"greenroom_shadow_resident_bytes {self._resident}",
            "# HELP greenroom_shadow_memory_limit_bytes The container's limit, 0 where there is none.",
            "# TYPE greenroom_shadow_memory_limit_bytes gauge",
            f"greenroom_shadow_memory_limit_bytes {self._bounds.limit_bytes or 0}",
            "# HELP greenroom_shadow_oom_kills_total Processes that the kernel killed for want of memory.",
            "# TYPE greenroom_shadow_oom_kills_total counter",
            f"greenroom_shadow_oom_kills_total {self._oom_kills()}",
        ]
        own = self._metrics
        return (own + ("" if not own or own.endswith("\n") else "\n") + "\n".join(lines) + "\n").encode()

    def _refuse_what_cannot_be(self) -> None:
        """Say so where nothing is guarded, or no process can begin."""
        if self._bounds.limit_bytes is None:
            tell("the container has no memory limit, so the shadow's memory is not guarded", level="warning")
        if self._bounds.complaint:
            self._count(End(reason=ends.OUT_OF_MEMORY, message=self._bounds.complaint, at=self._clock()))
            self._not_before = float("inf")

    def _turn(self) -> None:
        now = self._clock()
        if self._child is None and self._end_by is None and now >= self._not_before:
            self._start(now)
        if self._child is not None and self._end_by is not None:
            self._child.ask_to_end()
        self._listen()
        self._reap()
        child, now = self._child, self._clock()
        if child is not None and now >= self._next_look:
            self._next_look = now + self._pace.poll
            self._look_after(child, now)

    def _start(self, now: float) -> None:
        resume = b"" if self._process is None else json.dumps(self._process).encode()
        try:
            child = start(
                self._command,
                environment=self._environment,
                data_bytes=self._bounds.data_bytes,
                resume=resume,
                now=now,
                oom_kills=self._oom_kills(),
            )
        except OSError as error:
            self._count(End(reason=ends.CRASHED, message=f"no process can be started: {error}", at=now))
            self._not_before = now + self._backoff.after(0.0)
            return
        self._child = child
        self._next_look = now
        for descriptor in (child.told, child.errors):
            self._selector.register(descriptor, selectors.EVENT_READ, child)

    def _listen(self) -> None:
        """Wait for what the process says, a signal, or the next look; take one piece from each pipe."""
        now = self._clock()
        due = self._next_look if self._child is not None else self._not_before
        wait = min(max(0.0, due - now), self._pace.container)
        for key, _ in self._selector.select(wait):
            child = key.data
            if child is None:
                read(key.fd)
            elif key.fd == child.told:
                self._hear(child)
            else:
                self._overhear(child)

    def _hear(self, child: Child) -> bool:
        """Take what the process tells; False where there is no more."""
        content = read(child.told)
        if content == b"":
            child.told = self._hang_up(child.told)
        for line in child.words.take(content or b""):
            told = parse_told(line)
            if told is not None:
                child.heard, child.spoke, child.patience = self._clock(), True, told.patience
                self._process = told.process
                self._metrics = told.metrics if told.metrics is not None else self._metrics
        return bool(content)

    def _overhear(self, child: Child) -> bool:
        """Take what the process writes to stderr, and pass it on while that is not too much."""
        content = read(child.errors)
        if content == b"":
            child.errors = self._hang_up(child.errors)
        if not content:
            return False
        child.keep_error(content)
        now = self._clock()
        if now - self._passed_on_since >= 1.0:
            self._passed_on, self._passed_on_since = 0.0, now
        for begin in range(0, len(content), 4096):
            piece = content[begin : begin + 4096]
            if self._passed_on + len(piece) <= _PASSED_ON_A_SECOND and write_if_read(2, piece):
                self._passed_on += len(piece)
        return True

    def _hang_up(self, descriptor: int) -> int:
        self._selector.unregister(descriptor)
        os.close(descriptor)
        return -1

    def _look_after(self, child: Child, now: float) -> None:
        """Kill the process where its memory or its heart asks for it, or its time to end is over."""
        others = descendants(child.pid)
        self._resident = resident_bytes(child.pid, others)
        child.peak_bytes = max(child.peak_bytes, self._resident)
        if child.verdict is not None or (self._end_by is not None and now >= self._end_by):
            child.kill()  # again: what it started since the last time is as little wanted
            return
        child.verdict = self._judge_memory(now) or self._judge_heart(child, now)
        if child.verdict is not None:
            child.kill()
            tell("killed the shadow process", level="warning", pid=child.pid, why=child.verdict.message)

    def _judge_memory(self, now: float) -> Verdict | None:
        limit, most = self._bounds.limit_bytes, self._bounds.kill_bytes
        if limit is None or most is None:
            return None
        remedy = "raise spec.shadow.resources.limits.memory or use a smaller model"
        if self._resident >= most:
            had = f"the process had {self._resident // _MIB} MiB of memory"
            message = f"{had} of the container's {limit // _MIB} MiB and was killed at 80 %: {remedy}"
            return Verdict(reason=ends.OUT_OF_MEMORY, message=message)
        if self._container is None or now < self._next_container:
            return None
        self._next_container = now + self._pace.container
        taken = self._container.taken() or 0
        if taken < most:
            return None
        had = f"the container had {taken // _MIB} MiB of its {limit // _MIB} MiB, files in memory included"
        return Verdict(
            reason=ends.OUT_OF_MEMORY, message=f"{had}, and the process was killed at 80 %: {remedy}"
        )

    def _judge_heart(self, child: Child, now: float) -> Verdict | None:
        usual = self._pace.heart if child.spoke else self._pace.first_heart
        patience = max(usual, min(child.patience, self._pace.longest_heart))
        if now - child.heard <= patience:
            return None
        message = (
            f"the process told nothing for {patience:g} s and was killed: the model may compute for ever"
        )
        return Verdict(reason=ends.HUNG, message=message)

    def _reap(self) -> None:
        """Take leave of all that have ended: ours, and what it left behind."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self._child is not None and pid == self._child.pid:
                    self._bury(self._child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, code: int) -> None:
        for take, descriptor in ((self._hear, "told"), (self._overhear, "errors")):
            pieces = 64  # of 64 KiB: what it left behind may go on writing
            while getattr(child, descriptor) >= 0 and take(child) and pieces:
                pieces -= 1
            if getattr(child, descriptor) >= 0:
                setattr(child, descriptor, self._hang_up(getattr(child, descriptor)))
        self._child, self._resident = None, 0
        self._kill_leftovers()
        now = self._clock()
        if self._end_by is not None:
            return
        ended = Ended(
            code=code,
            verdict=child.verdict,
            peak_bytes=child.peak_bytes,
            limited=self._bounds.limit_bytes is not None,
            oom_kills=max(0, self._oom_kills() - child.oom_kills),
            last_words=child.last_words,
        )
        self._count(explain(ended, at=now))
        self._not_before = now + self._backoff.after(now - child.began)

    def _count(self, end: End) -> None:
        self._end = end
        self._ends[end.reason] += 1
        tell("the shadow process has ended", level="warning", reason=end.reason, why=end.message)

    def _kill_leftovers(self) -> None:
        """End what a process started and left behind, which is ours by now."""
        for pid in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _oom_kills(self) -> int:
        return self._cgroup.oom_kills() if self._cgroup is not None else 0


def child_environment(environment: Mapping[str, str], *, limit_bytes: int | None) -> dict[str, str]:
    """Return what a shadow process gets: threads that need no memory, and the limit that really holds."""
    limit = {} if limit_bytes is None else {names.ENV_MEMORY_LIMIT: str(limit_bytes)}
    kept = {name: value for name, value in environment.items() if name != names.ENV_MEMORY_LIMIT}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return {**kept, **threads, **limit}
