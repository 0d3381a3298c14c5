"""Run the spatial stage as CUDA graphs: the kernels of a batch are recorded once, then replayed in one call.

N units in a batch, t frames in a unit, H W C pixels, D embedding width.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import torch
from torch import Tensor

from tubelet.models.video_model import VideoModel


class GraphedModel(VideoModel):
    """A model whose ``encode`` is recorded for batches of 1, 2, 4 ... units, up to the largest batch.

    A batch runs in the next larger recording, whose results beyond the batch are dropped. The temporal stage,
    a thousandth of the work, is not recorded. One thread at a time may use the model.
    """

    def __init__(self, model: VideoModel, frames_per_unit: int, max_batch_units: int) -> None:
        super().__init__(model.preprocessing)
        self.tokens_per_unit = model.tokens_per_unit
        self.head = model.head
        self._model = model
        size, device = model.preprocessing, model.mean.device
        shape = (max_batch_units, frames_per_unit, size.height, size.width, 3)
        self._units = torch.zeros(shape, dtype=torch.uint8, device=device)
        # The largest first: the others reuse its memory, since only one runs at a time.
        self._recordings: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        with torch.cuda.device(device), torch.inference_mode():
            stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            stream.wait_stream(torch.cuda.current_stream())
            for count in reversed(recorded_sizes(max_batch_units)):
                units = self._units[:count]
                with torch.cuda.stream(stream):
                    model.encode(units)  # libraries must choose and load kernels before the recording
                graph = torch.cuda.CUDAGraph()
                # thread_local, since a server may serve a model on this device while it loads another one.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self._recordings[count] = graph, model.encode(units)
            torch.cuda.current_stream().wait_stream(stream)

    def encode(self, units: Tensor) -> Tensor:
        """Embed at most ``max_batch_units`` units by replaying a graph: (N, t, H, W, C) uint8 -> (N, D)."""
        graph, embeddings = self._recordings[min(n for n in self._recordings if n >= len(units))]
        self._units[: len(units)].copy_(units, non_blocking=True)
        graph.replay()
        return embeddings[: len(units)].clone()  # the next replay overwrites them

    def pool(self, windows: Tensor) -> Tensor:
        return self._model.pool(windows)

    def classify(self, windows: Tensor) -> Tensor:
        return self._model.classify(windows)

    def pool_and_classify(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        return self._model.pool_and_classify(windows)


def recorded_sizes(largest: int) -> list[int]:
    """Return the batch sizes that get a graph: powers of two up to ``largest``, and ``largest``."""
    return [1 << power for power in range(largest.bit_length()) if 1 << power < largest] + [largest]
