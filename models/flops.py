"""Floating-point operations of a window, counted from shapes without computing anything."""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models.families.registry import Dims, build_on_meta
from tubelet.models.spec import Preprocessing, Sampling


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of one window; a multiply-add counts as two."""

    spatial: int  # of ``encode`` over all units of the window
    temporal: int  # of ``classify``

    @property
    def total(self) -> int:
        """The operations of both stages."""
        return self.spatial + self.temporal


@torch.inference_mode()
def window_flops(dims: Dims, preprocessing: Preprocessing, sampling: Sampling, num_classes: int) -> Flops:
    """Count the matrix products, convolutions and attention of one window of a model."""
    units, frames = sampling.units_per_window, sampling.frames_per_unit
    # Meta tensors have shapes and no memory. The counter cannot see into fused attention, hence MATH.
    model = build_on_meta(dims, preprocessing, num_classes).eval().to("meta")
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        pixels = torch.empty((units, frames, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8)
        with FlopCounterMode(display=False) as spatial:
            embeddings = model.encode(pixels)
        with FlopCounterMode(display=False) as temporal:
            model.classify(embeddings[None])
    return Flops(spatial.get_total_flops(), temporal.get_total_flops())
