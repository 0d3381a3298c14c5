"""LitServe: two workers, batches of up to four requests, decoded one after another in their worker.

python -m tests.bench.peers.lit STORE MODEL PORT
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from fastapi import Request

from tests.bench.peers.work import Recogniser

STORE, MODEL, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
_WORKERS = 2  # processes, one torch thread each: the best of 1 x 2, 2 x 1 and 2 x 2 on two cores


class Classifier(litserve.LitAPI):
    def setup(self, device: Any) -> None:
        torch.set_num_threads(1)
        self.recogniser = Recogniser(STORE, MODEL)

    def decode_request(self, request: Request, **_: Any) -> np.ndarray:
        form: Any = request  # of a multipart upload
        return self.recogniser.decode(form["video"].file.read())

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return inputs

    def predict(self, x: Any, **_: Any) -> Any:
        return list(self.recogniser.logits(x if isinstance(x, list) else [x]))

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any, **_: Any) -> dict[str, int]:
        return {"label": int(np.argmax(output))}


if __name__ == "__main__":
    api = Classifier(max_batch_size=4, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=_WORKERS, timeout=600).run(
        port=PORT, host="127.0.0.1", generate_client_file=False, log_level="error"
    )
