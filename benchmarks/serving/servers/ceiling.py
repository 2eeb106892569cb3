"""What both ceilings share: a bare ASGI app under uvicorn with the serving runtime's own settings."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np
import uvicorn

from benchmarks.serving.servers.scoring import NUMBERS, NUMERIC_INPUT, OUTPUTS, TEXT_INPUT, open_session

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def build(values: Callable[[bytes], tuple[Any, ...]], dumps: Callable[[Any], bytes]) -> Application:
    """Return the app; ``values`` reads a body as the features in the order of the model."""
    run = open_session(os.environ["BENCH_MODEL"]).run
    numbers = len(NUMBERS)

    async def application(
        _: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        message = await receive()
        body: bytes = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        row = values(body)
        label, probabilities = run(
            OUTPUTS,
            {
                NUMERIC_INPUT: np.array([row[:numbers]], dtype=np.float64),
                TEXT_INPUT: np.array([row[numbers:]], dtype=object),
            },
        )
        no, yes = probabilities[0].tolist()
        answer = dumps({"prediction": int(label[0]), "probabilities": {"0": no, "1": yes}})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def serve(application: Application) -> None:
    """Serve until ended."""
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
