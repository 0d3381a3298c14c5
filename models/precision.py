"""The number format that a model computes in: chosen at load by what the device does natively."""

import platform
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def choose_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the chip multiplies it natively, else float32."""
    if wanted == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
