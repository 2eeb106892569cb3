"""Our own contender: the serving runtime with everything on, or with parts of it off."""

from pathlib import Path

from benchmarks.serving.model import NAME
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import PredictionLog, RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore, Rollout, dump_flags

ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
"""As in the image."""
PRODUCTION, CANDIDATE = "v1", "v2"
_ROLLOUT = Rollout(version=CANDIDATE, hundredths=1000, salt=f"default/{NAME}")


def write_state(
    state: Path, *, source: Path, port: int, admin_port: int, flags: FlagStore, log: PredictionLog | None
) -> Path:
    """Write configuration and flag store under ``state``; return the configuration's path."""
    write_flags(state, flags)
    config = RuntimeConfig(
        name=NAME,
        source_uri=source.resolve().as_uri(),
        models_dir=str(state / "models"),
        flags_path=str(state / names.FLAGS_FILE),
        host="127.0.0.1",
        http_port=port,
        admin_port=admin_port,
        drain_seconds=0.0,
        prediction_log=log,
    )
    path = state / names.CONFIG_FILE
    path.write_text(config.to_json())
    return path


def write_flags(state: Path, flags: FlagStore) -> None:
    """Publish the flag store in one step."""
    new = state / f"{names.FLAGS_FILE}.new"
    new.write_text(dump_flags(flags))
    new.replace(state / names.FLAGS_FILE)


def prediction_log(state: Path) -> PredictionLog:
    """Return the log of the measurement: every prediction, into files."""
    return PredictionLog(sink="Files", directory=str(state / "predictions"))


def flag_store(*, rollout: bool) -> FlagStore:
    """Return production alone, or with 10 % of the users on the candidate."""
    if not rollout:
        return FlagStore(production=PRODUCTION, resident=(PRODUCTION,))
    return FlagStore(production=PRODUCTION, resident=(PRODUCTION, CANDIDATE), rollout=_ROLLOUT)
