"""A model whose spatial stage runs on OpenVINO, for CPUs where that is faster.

N units in a batch, B windows, S units in a window, D embedding width, K classes.
OpenVINO: https://docs.openvino.ai/
"""

import copy
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.models.errors import MissingExtra
from tubelet.models.runtime.onednn import pack
from tubelet.models.video_model import VideoModel

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVinoModel(VideoModel):
    """A model whose ``encode`` is compiled for a full batch, a quarter of it and one unit.

    A batch of another size is split into these. Each compiled size has its own copy of the weights, which are
    those of ``model`` in float32; they compute in ``dtype``. The temporal stage, a thousandth of the work,
    stays in torch.

    Raises:
        MissingExtra: openvino is not installed.
    """

    def __init__(self, model: VideoModel, frames_per_unit: int, dtype: torch.dtype) -> None:
        super().__init__(model.preprocessing)
        self.tokens_per_unit = model.tokens_per_unit
        size = model.preprocessing
        shape = (self.cpu_batch_units, frames_per_unit, size.height, size.width, 3)
        units = torch.zeros(shape, dtype=torch.uint8)
        sizes = {len(units), max(1, len(units) // 4), 1}
        self._compiled = {size: _compiled(model, units[:size], dtype) for size in sorted(sizes, reverse=True)}
        self._temporal = copy.deepcopy(model).to(dtype)
        pack(self._temporal)
        self._dtype = dtype

    def encode(self, units: Tensor) -> Tensor:
        embeddings: list[Tensor] = []
        for size, compiled in self._compiled.items():
            count = len(units) // size
            embeddings += [compiled(batch) for batch in units[: count * size].split(size) if count]
            units = units[count * size :]
        return torch.cat(embeddings).to(self._dtype)

    def classify(self, windows: Tensor) -> Tensor:
        return self._temporal.classify(windows)


class _Encode(nn.Module):
    """The spatial stage as one graph, without in-place operations, which the converter cannot trace."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model.normalise = self._normalise

    def forward(self, units: Tensor) -> Tensor:
        return self.model.encode(units)

    def _normalise(self, units: Tensor) -> Tensor:
        """``VideoModel.normalise`` without in-place operations."""
        return (units.to(self.model.mean.dtype) / 255 - self.model.mean) / self.model.std


def _compiled(model: VideoModel, units: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Compile the spatial stage for the shape of ``units``: (N, t, H, W, C) uint8 -> (N, D) float32."""
    openvino = _openvino()
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns about every shape that it makes constant, which is the purpose here.
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(_Encode(model), example_input=units)
    graph.reshape(list(units.shape))
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.compile_model(graph, "CPU", options)
    return lambda batch: torch.from_numpy(compiled(batch.numpy())[0])


def _openvino() -> Any:
    """Import openvino without its telemetry.

    Raises:
        MissingExtra: openvino is not installed.
    """
    # Its converter would send telemetry from a fork of this process. A server contacts nobody whom its
    # operator did not name, and forking a process that serves gRPC breaks connections.
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtra("engine.runtime is openvino: pip install 'tubelet[openvino]'") from None
    return openvino
