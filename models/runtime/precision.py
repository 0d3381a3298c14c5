"""Choose the number format that a model computes in, by what the device multiplies natively.

The variables ``ATEN_CPU_CAPABILITY`` and ``ONEDNN_MAX_CPU_ISA`` let an x86 CPU compute as an older one does:
https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cpu.get_cpu_capability
https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

import os
import platform
from typing import Literal

import torch

from tubelet.models.errors import UnsupportedPrecision
from tubelet.models.spec import Family

Native = Literal["fp32", "bf16", "int8"]
Precision = Literal["auto"] | Native
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Values of ONEDNN_MAX_CPU_ISA that rule an instruction set out.
_ISAS_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE")
_ISAS_WITHOUT_BF16 = (*_ISAS_WITHOUT_VNNI, "AVX512_CORE_VNNI")
_FAMILIES_WITHOUT_INT8: tuple[Family, ...] = ("torchvision", "framewise", "r2plus1d", "hf")


def native_precisions(device: torch.device) -> tuple[Native, ...]:
    """Return the precisions that tubelet supports on a device and that the device multiplies natively."""
    native: dict[Native, bool] = {
        "fp32": True,
        "bf16": _multiplies_bf16(device),
        "int8": device.type == "cpu" and _has_vnni(),
    }
    return tuple(precision for precision, is_native in native.items() if is_native)


def auto_precision(*devices: torch.device) -> Literal["fp32", "bf16"]:
    """Return the precision that ``auto`` means: bf16 where all devices multiply it natively, else fp32."""
    return "bf16" if all("bf16" in native_precisions(device) for device in devices) else "fp32"


def choose_dtype(wanted: Precision, *devices: torch.device) -> torch.dtype:
    """Return bfloat16 or float32, the same for all devices, since they share windows.

    With ``int8``, all layers but the linear ones of transformer blocks compute in what ``auto`` takes.

    Raises:
        UnsupportedPrecision: a device does not multiply the wanted precision natively.
    """
    auto = auto_precision(*devices)
    for device in devices:
        if wanted != "auto" and wanted not in native_precisions(device):
            raise UnsupportedPrecision(_unsupported_message(wanted, device, auto))
    return _DTYPES[auto if wanted in ("auto", "int8") else wanted]


def precision_name(wanted: Precision, *devices: torch.device) -> str:
    """Return the name of the precision that a model computes in, for users: int8, bfloat16 or float32.

    Raises:
        UnsupportedPrecision: a device does not multiply the wanted precision natively.
    """
    dtype = choose_dtype(wanted, *devices)
    return "int8" if wanted == "int8" else str(dtype).removeprefix("torch.")


def check_int8(family: str) -> None:
    """Refuse families that do not run in int8.

    Raises:
        UnsupportedPrecision: models of ``family`` run through a library, or have no transformer blocks.
    """
    if family in _FAMILIES_WITHOUT_INT8:
        raise UnsupportedPrecision(f"engine.precision is int8, which models of family {family} do not run in")


def _multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: CUDA, ARM or x86 with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    has_it = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has_it and _may_use_avx512(_ISAS_WITHOUT_BF16)


def _has_vnni() -> bool:
    """Return whether this CPU has AVX-512 VNNI and the environment allows it."""
    return torch.cpu._is_vnni_supported() and _may_use_avx512(_ISAS_WITHOUT_VNNI)


def _may_use_avx512(isas_without: tuple[str, ...]) -> bool:
    """Return whether the environment allows torch AVX-512, and oneDNN more than ``isas_without``."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and limit not in isas_without


def _unsupported_message(wanted: Native, device: torch.device, auto: Native) -> str:
    """Say why ``device`` does not compute in the ``wanted`` precision, and what it does compute in."""
    native = native_precisions(device)
    name = "this CPU" if device.type == "cpu" else str(device)
    if wanted == "bf16":
        why = f"{name} does not multiply it natively"
    elif device.type == "cpu":
        why = f"{name} has no AVX-512 VNNI to multiply it"
    else:
        why = f"{name} does not run it, only CPUs do"
    taken = "that" if native == (auto,) else auto
    return f"engine.precision is {wanted}, but {why}; it has {' and '.join(native)} (auto takes {taken})"
