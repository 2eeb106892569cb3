# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""MLServer with a custom runtime, as its documentation shows; it speaks V2."""

import os
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.servers.scoring import NUMERIC_INPUT, OUTPUTS, TEXT_INPUT, open_session


class Scorer(MLModel):
    """Answers tensors."""

    async def load(self) -> bool:
        """Open the session."""
        self.session = open_session(os.environ["BENCH_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        tensors: dict[str, Any] = {tensor.name: tensor for tensor in payload.inputs}
        texts = StringCodec.decode_input(tensors[TEXT_INPUT])
        label, probabilities = self.session.run(
            OUTPUTS,
            {
                NUMERIC_INPUT: NumpyCodec.decode_input(tensors[NUMERIC_INPUT]),
                TEXT_INPUT: np.array(texts, dtype=object).reshape(tensors[TEXT_INPUT].shape),
            },
        )
        outputs = [
            NumpyCodec.encode_output("label", label),
            NumpyCodec.encode_output("probabilities", probabilities),
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
