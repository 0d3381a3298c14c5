"""Choice of devices, and loading of models onto them in the form that runs fastest there."""

import logging

import torch

from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.cuda_graphs import GraphedModel
from tubelet.models.runtime.int8 import Int8Linear
from tubelet.models.runtime.onednn import PackedLinear, pack
from tubelet.models.runtime.precision import check_int8
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.config.config import EngineConfig

_log = logging.getLogger(__name__)


class NoSuchDevice(RuntimeError):
    """The configuration names a device that this machine does not have."""


def choose_devices(wanted: str) -> list[torch.device]:
    """Return the devices that ``wanted`` names, separated by commas; ``auto``: all GPUs, or else the CPU.

    Raises:
        NoSuchDevice: this machine lacks one of the devices, or one is named twice.
    """
    gpus = torch.cuda.device_count()
    if wanted == "auto":
        return [torch.device("cuda", number) for number in range(gpus)] or [torch.device("cpu")]
    devices = [torch.device(name) for name in wanted.split(",")]
    numbered = {torch.device("cuda", 0) if device == torch.device("cuda") else device for device in devices}
    if len(numbered) < len(devices):
        raise NoSuchDevice(f"engine.device is {wanted!r}, which names a device twice; name each device once")
    for device in devices:
        if device.type == "cuda" and (device.index or 0) >= gpus:
            raise NoSuchDevice(f"engine.device is {wanted!r}, but torch sees {gpus} GPUs on this machine")
    return devices


def expand_cpu_cores(devices: list[torch.device], cores: int) -> list[torch.device]:
    """Replace the CPU among ``devices`` by one device for each of the ``cores``: ``cpu:0``, ``cpu:1``, ...

    Each of the returned devices computes one batch at a time.
    """
    return [
        torch.device("cpu", core) if device == torch.device("cpu") else device
        for device in devices
        for core in range(cores if device == torch.device("cpu") else 1)
    ]


def load_model(
    config: EngineConfig,
    store: ModelStore,
    spec: ModelSpec,
    device: torch.device,
    dtype: torch.dtype,
    max_batch_units: int,
) -> VideoModel:
    """Load the model of ``spec`` onto ``device``, prepared for batches of at most ``max_batch_units``.

    Its linear layers are packed for oneDNN on a CPU, and it runs as CUDA graphs on a GPU where it can.

    Raises:
        tubelet.models.errors.BrokenModel: the model's files contradict its model.toml.
        tubelet.models.errors.MissingExtra: the model needs a library that is not installed.
        UnsupportedPrecision: the model cannot run in the configured precision.
    """
    if config.precision == "int8":
        check_int8(spec.family)
    model = store.find(spec.name, spec.version).load().to(device=device, dtype=dtype)
    if device.type == "cpu":
        pack(model, Int8Linear if config.precision == "int8" else PackedLinear)
        return model
    if not model.supports_cuda_graphs:
        _log.info(
            "model %s %s runs without CUDA graphs, which family %s does not support",
            spec.name,
            spec.version,
            spec.family,
        )
        return model
    return GraphedModel(model, spec.sampling.frames_per_unit, max_batch_units)
