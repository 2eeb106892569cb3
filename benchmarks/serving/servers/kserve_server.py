# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""KServe's Python server with a model class, as its documentation shows; it speaks V1 and V2."""

import os
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from benchmarks.serving.servers.scoring import NUMERIC_INPUT, OUTPUTS, TEXT_INPUT, open_session, score

NAME = os.environ["BENCH_NAME"]


class Scorer(Model):
    """Answers rows by name (V1) and tensors (V2)."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.load()

    def load(self) -> bool:
        """Open the session."""
        self.session = open_session(os.environ["BENCH_MODEL"])
        self.ready = True
        return self.ready

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
        """Answer one request."""
        if not isinstance(payload, InferRequest):
            return {"predictions": [score(self.session, row) for row in payload["instances"]]}
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        label, probabilities = self.session.run(
            OUTPUTS,
            {
                NUMERIC_INPUT: tensors[NUMERIC_INPUT].as_numpy(),
                TEXT_INPUT: tensors[TEXT_INPUT].as_numpy(),
            },
        )
        outputs = []
        for name, values, datatype in (("label", label, "INT64"), ("probabilities", probabilities, "FP32")):
            output = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
            output.set_data_from_numpy(values, binary_data=False)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or generate_uuid(), model_name=NAME, infer_outputs=outputs
        )


if __name__ == "__main__":
    ModelServer(
        http_port=int(os.environ["BENCH_PORT"]),
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
    ).start([Scorer()])
