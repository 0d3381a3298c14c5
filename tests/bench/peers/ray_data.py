"""Ray Data as its documentation has it: rows of decoded frames (``flat_map``), which actors classify.

    python -m tests.bench.peers.ray_data ADDRESS MANIFEST OUT STORE MODEL

Videos become windows in tasks, and windows become labels in batches by an actor that has the model
(``map_batches``): the guides "Working with Images" and "Offline Batch Inference" of Ray Data. A row has the
frames of a window, at the size of the model, which costs less than rows of whole frames. It prints the rate
as JSON, from the first video that begins to the last file that is written; the model is loaded before. In OUT
are files of rows, a line for each video that a task has begun, and one for each batch, with its windows.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import ray
import ray.data

from tests.bench.peers.decoding import WindowDecoder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import ModelSpec

BATCH = 32
_WAIT_S = 120  # for the actor, before any video begins


class Decode:
    """Decodes videos into rows of windows."""

    def __init__(self, spec: ModelSpec, begun: Path) -> None:
        self._spec = spec
        self._begun = begun

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the windows of a video, one a second."""
        with self._begun.open("a") as file:
            file.write(f"{row['id']} {time.time()}\n")
        video, sampling = Path(row["uri"]).read_bytes(), self._spec.sampling
        with av.open(row["uri"]) as container:
            rate = float(container.streams.video[0].average_rate or 25)
        frames_per_s = sampling.frames_per_window / sampling.window_s
        every, stride = max(1, round(rate / frames_per_s)), round(sampling.stride_s * frames_per_s)
        decoder = WindowDecoder(self._spec)
        windows = decoder.decode_windows(video, every, stride) or [decoder.decode(video)]
        for number, window in enumerate(windows):
            yield {"id": row["id"], "window": number, "frames": window}


class Classify:
    """Classifies batches of windows."""

    def __init__(self, store: Path, model: str, computed: Path) -> None:
        import torch

        from tests.bench.peers.work import Recogniser

        torch.set_num_threads(1)
        self._recogniser = Recogniser(store, model)
        self._computed = computed

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the label of each window (B, S, t, H, W, C), and leave out its frames."""
        frames = batch.pop("frames")
        labels = self._recogniser.logits(list(frames)).argmax(axis=1)
        with self._computed.open("a") as file:
            file.write(f"{len(labels)}\n")
        return {**batch, "label": labels}


def main() -> None:
    address, manifest, out, store, model = sys.argv[1:]
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = _WAIT_S
    rows = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    begun = Path(out) / "begun.txt"
    begun.parent.mkdir(parents=True, exist_ok=True)
    spec = ModelStore(Path(store)).find(model).spec
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    labelled = dataset.flat_map(Decode(spec, begun).__call__).map_batches(
        Classify,
        fn_constructor_args=[Path(store), model, begun.with_name("computed.txt")],
        batch_size=BATCH,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    labelled.write_parquet(f"{out}/rows")
    took_s = time.time() - min(float(line.split()[1]) for line in begun.read_text().splitlines())
    print(json.dumps({"videos_per_s": len(rows) / took_s, "elapsed_s": took_s}))


if __name__ == "__main__":
    main()
