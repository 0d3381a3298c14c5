"""The number format that a model computes in: chosen at load by what the device does natively."""

import platform
from typing import Literal

import torch

from models.contract import Family

Precision = Literal["auto", "fp32", "bf16", "int8"]
_OF_LIBRARIES: tuple[Family, ...] = ("torchvision", "hf")


class UnsupportedPrecision(RuntimeError):
    """A model cannot run in the precision that the configuration wants; the message says why."""


def choose_dtype(wanted: Precision, *devices: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where all chips multiply it natively, since they share windows; else float32.

    With ``int8`` it is what all but the linear layers of transformer blocks compute in, as ``auto``.
    """
    if wanted in ("auto", "int8"):
        return torch.bfloat16 if all(map(_multiplies_bfloat16, devices)) else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def precision_name(wanted: Precision, *devices: torch.device) -> str:
    """What a model computes in, as its users are told: int8, bfloat16 or float32."""
    return "int8" if wanted == "int8" else str(choose_dtype(wanted, *devices)).removeprefix("torch.")


def check_int8(device: torch.device, family: Family) -> None:
    """
    Raises:
        UnsupportedPrecision: the device or the family does not run in int8.
    """
    if device.type != "cpu":
        raise UnsupportedPrecision(
            f"engine.precision is int8, which runs on a CPU, but the device is {device}"
        )
    if not torch.cpu._is_vnni_supported():
        raise UnsupportedPrecision("engine.precision is int8, but this CPU has no AVX-512 VNNI to run it")
    if family in _OF_LIBRARIES:
        raise UnsupportedPrecision(f"engine.precision is int8, which models of family {family} do not run in")


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
