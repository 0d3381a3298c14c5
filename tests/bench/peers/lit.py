"""A LitServe server: a process a core, which decodes and computes one video at a time on one thread.

python -m tests.bench.peers.lit STORE MODEL HOST:PORT

Batches of several videos were slower: one video's units fill the processor already.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from fastapi import Body  # pyright: ignore[reportMissingImports]

from tests.bench.peers.work import Recogniser

_WORKERS = len(os.sched_getaffinity(0))


class Api(litserve.LitAPI):
    def __init__(self, store: Path, model: str) -> None:
        super().__init__()
        self._source = store, model

    def setup(self, device: Any) -> None:
        torch.set_num_threads(1)
        self._recogniser = Recogniser(*self._source)

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")], **_: Any
    ) -> np.ndarray:
        return self._recogniser.decode(request)

    def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
        return self._recogniser.logits([x])[0]

    def encode_response(self, output: np.ndarray, **_: Any) -> dict[str, int]:
        return {"label": int(output.argmax())}


if __name__ == "__main__":
    store, model, address = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    host, port = address.rsplit(":", 1)
    server = litserve.LitServer(
        Api(store, model), accelerator="cpu", workers_per_device=_WORKERS, timeout=False
    )
    server.run(host=host, port=int(port), log_level="error", generate_client_file=False)
