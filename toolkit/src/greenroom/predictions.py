"""SQL over the prediction log: segments of a directory or an object store, in DuckDB."""

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb

from greenroom.errors import CommandError
from greenroom.progress import counting
from greenroom.stores import explain, local_path
from greenroom_runtime.contract import names
from greenroom_runtime.models.clouds import CLOUD_SCHEMES, open_store

SUFFIX: Final = ".jsonl"
DEFAULT_QUERY: Final = """
SELECT model, version, role, status, count(*) AS predictions,
       round(avg(latency_ms), 2) AS latency_ms, min(time) AS first, max(time) AS last
FROM predictions GROUP BY ALL ORDER BY ALL
"""
_COLUMNS: Final = {
    "id": "VARCHAR",
    "time": "TIMESTAMPTZ",
    "model": "VARCHAR",
    "namespace": "VARCHAR",
    "version": "VARCHAR",
    "role": "VARCHAR",
    "reason": "VARCHAR",
    "entity": "VARCHAR",
    "features": "JSON",
    "feature_source": "VARCHAR",
    "prediction": "JSON",
    "probabilities": "MAP(VARCHAR, DOUBLE)",
    "latency_ms": "DOUBLE",
    "status": "INTEGER",
    "error": "VARCHAR",
    "comparison": "JSON",
}
"""Said, not guessed: what is guessed differs between files, and between releases of DuckDB."""
_DAY = re.compile(r"(?:^|/)date=(\d{4}-\d{2}-\d{2})/")
_LONGEST = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Period:
    """Days, both included; None is no bound."""

    since: date | None = None
    until: date | None = None

    def has(self, key: str) -> bool:
        """Tell whether a segment's key is of these days; one without a day always is."""
        found = _DAY.search(key)
        if found is None:
            return True
        day = date.fromisoformat(found[1])
        return (self.since is None or day >= self.since) and (self.until is None or day <= self.until)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a query found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def to_data(self) -> list[dict[str, Any]]:
        """Return the rows as JSON carries them."""
        return [
            {name: _plain(value) for name, value in zip(self.columns, row, strict=True)} for row in self.rows
        ]


def query(sql: str, *, source: str, period: Period, environment: Mapping[str, str]) -> Table:
    """Return what a query says of the view ``predictions``: each record once, of all sealed segments.

    CommandError where there are no segments, they cannot be read, or the query is wrong.
    """
    with segments(source, period=period, environment=environment) as files, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            columns = ", ".join(f"{name}: '{kind}'" for name, kind in _COLUMNS.items())
            paths = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
            connection.execute(
                f"CREATE VIEW predictions AS SELECT DISTINCT ON (id, time, role) * FROM "  # noqa: S608 our own names
                f"read_json([{paths}], format = 'newline_delimited', columns = {{{columns}}}) "
                f"WHERE {_bounds(period)}"
            )
            cursor = connection.execute(sql)
            described = cursor.description or []
            columns_found = _unique([str(column[0]) for column in described])
            return Table(columns=columns_found, rows=cursor.fetchall())
        except duckdb.Error as error:
            raise CommandError(f"the query fails: {error}") from error


def _unique(names_found: Sequence[str]) -> list[str]:
    """Return names that differ, by a number behind those that come again: a join has some twice."""
    unique: list[str] = []
    for name in names_found:
        told, number = name, 0
        while told in unique:
            number += 1
            told = f"{name}_{number}"
        unique.append(told)
    return unique


def _bounds(period: Period) -> str:
    """Return the period as a condition: segments of a day hold the first records of the next one, too."""
    since = [] if period.since is None else [f"time >= TIMESTAMPTZ '{period.since} 00:00:00Z'"]
    until = []
    if period.until is not None:
        until = [f"time < TIMESTAMPTZ '{period.until + timedelta(days=1)} 00:00:00Z'"]
    return " AND ".join([*since, *until]) or "true"


@contextmanager
def segments(source: str, *, period: Period, environment: Mapping[str, str]) -> Iterator[list[Path]]:
    """Yield the sealed segments of a directory, or of an object store through a directory of their own."""
    with ExitStack() as stack:
        if (place := local_path(source)) is not None:
            found = _find(place, period=period)
        else:
            copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-")))
            found = _download(source, copies, period=period, environment=environment)
        if not found:
            raise CommandError(
                f"{source} has no segments of the prediction log ({SUFFIX}) of these days: name the "
                "directory of a pod's log, or the uri of spec.predictionLog; the newest segment is "
                "sealed after a minute"
            )
        yield found


def _find(place: Path, *, period: Period) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise CommandError(
            f"{place}: no such file or directory: name the directory of a pod's log, or s3://BUCKET/PREFIX"
        )
    return sorted(path for path in place.rglob(f"*{SUFFIX}") if period.has(path.as_posix()))


def _download(uri: str, to: Path, *, period: Period, environment: Mapping[str, str]) -> list[Path]:
    if uri.partition("://")[0] not in CLOUD_SCHEMES:
        raise CommandError(
            f"{uri} cannot be asked: name a pod's directory, or a log in an object store, by "
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; a collector's is asked there"
        )
    own = {
        name.removeprefix(names.ENV_LOG_PREFIX): value
        for name, value in environment.items()
        if name.startswith(names.ENV_LOG_PREFIX)
    }
    # The days before: a segment has the day that it was begun on.
    wider = Period(since=period.since and period.since - timedelta(days=1), until=period.until)
    try:
        store = open_store(uri, environment=environment, own=own, longest=_LONGEST)
        listed = [item for batch in store.list() for item in batch if item["path"].endswith(SUFFIX)]
        chosen = [item for item in listed if wider.has(item["path"])]
        files = []
        with counting(f"fetching {len(chosen)} segments", sum(item["size"] for item in chosen)) as count:
            for number, item in enumerate(chosen):
                path = to / f"{number:08}{SUFFIX}"
                path.write_bytes(bytes(store.get(item["path"]).bytes()))
                files.append(path)
                count(item["size"])
    except Exception as error:  # obstore's errors have no common base with the file system's
        raise CommandError(f"{uri} cannot be read: {explain(error, uri=uri)}") from error
    return files


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)  # JSON has neither
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
