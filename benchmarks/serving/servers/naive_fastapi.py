"""A prediction service as FastAPI tutorials write it: a pydantic model, a ``def`` endpoint, a session."""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.servers.scoring import open_session, score

app = FastAPI()
session = open_session(os.environ["BENCH_MODEL"])


class Features(BaseModel):
    """The model's inputs."""

    age: float
    balance: float
    calls: float
    days: float
    events: float
    fees: float
    gain: float
    hours: float
    place: str
    plan: str


class PredictionRequest(BaseModel):
    """The request's body."""

    features: Features
    user_id: str


@app.post("/predict")
def predict(request: PredictionRequest) -> dict[str, Any]:
    """Answer one row."""
    return score(session, request.features.model_dump())
