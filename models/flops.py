"""What a window costs: floating-point operations of both stages, counted on shapes alone."""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models.families.registry import Dims, build_model
from tubelet.models.spec import Preprocessing, Sampling


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations a window; a multiplication and its addition are two."""

    spatial: int  # encode, all units of the window
    temporal: int  # classify

    @property
    def total(self) -> int:
        return self.spatial + self.temporal


@torch.inference_mode()
def window_flops(dims: Dims, preprocessing: Preprocessing, sampling: Sampling, num_classes: int) -> Flops:
    """Matrix products, convolutions and attention of one window; nothing is computed."""
    units, frames = sampling.units_per_window, sampling.frames_per_unit
    # Meta tensors have shapes and no memory; the counter does not see into fused attention.
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        model = build_model(dims, preprocessing, num_classes).eval()
        pixels = torch.empty((units, frames, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8)
        with FlopCounterMode(display=False) as spatial:
            embeddings = model.encode(pixels)
        with FlopCounterMode(display=False) as temporal:
            model.classify(embeddings[None])
    return Flops(spatial.get_total_flops(), temporal.get_total_flops())
