"""The training frame from a file, for the command: CSV as pandas reads it, Parquet by DuckDB."""

from pathlib import Path
from typing import Any

import pandas as pd

from greenroom.packaging.errors import FrameError


def read_frame(path: Path) -> pd.DataFrame:
    """Return the table of a ``.csv``, ``.csv.gz`` or ``.parquet`` file; FrameError where it is none."""
    if not path.is_file():
        raise FrameError(f"{path}: no such file: name the training data, as CSV or Parquet")
    kind = path.name.lower()
    try:
        if kind.endswith((".csv", ".csv.gz")):
            return pd.read_csv(path)
        if kind.endswith(".parquet"):
            return _read_parquet(path)
    except FrameError:
        raise
    except Exception as error:  # pandas and DuckDB raise what they like
        raise FrameError(f"{path} cannot be read: {error}") from error
    raise FrameError(f"{path} is neither .csv, .csv.gz nor .parquet: write the training data as one of them")


def _read_parquet(path: Path) -> pd.DataFrame:
    import duckdb  # noqa: PLC0415 only for this

    with duckdb.connect() as connection:
        frame: pd.DataFrame = connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).df()
    return frame


def split_target(
    pipeline: Any, frame: pd.DataFrame, target: str | None
) -> tuple[pd.DataFrame, list[Any] | None]:
    """Return the columns that the pipeline was fitted on, in its order, and the target's values.

    Other columns are left out. FrameError names the columns that are missing.
    """
    fitted = getattr(pipeline, "feature_names_in_", None)
    columns = [name for name in frame.columns if name != target] if fitted is None else list(fitted)
    wanted = [*columns, *([target] if target is not None else [])]
    if missing := [name for name in wanted if name not in frame.columns]:
        raise FrameError(
            f"the data has no columns {missing}; it has {list(frame.columns)}: pass the training data"
        )
    return frame[columns], None if target is None else frame[target].tolist()
