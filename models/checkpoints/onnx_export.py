"""A model as an ONNX file: the frames of windows to logits, checked in ONNX Runtime (``tubelet[onnx]``).

torch.export records the model, and torch.onnx translates it: https://pytorch.org/docs/stable/onnx_export.html.
B windows, T frames of a window, H W C pixels, K classes.
"""

import json
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.models.errors import CannotExport, MissingExtra
from tubelet.models.repository.fingerprint import fixed_clip
from tubelet.models.repository.model_folder import Entry, one_line
from tubelet.models.video_model import VideoModel

INPUT, OUTPUT = "frames", "logits"
TOLERANCE = 1e-4
"""Allowed difference of a logit in ONNX Runtime, as a share of the largest one."""
MAX_WINDOWS = 1024
_ONE_FILE_BYTES = 1_900_000_000  # of weights; a protobuf holds less than 2 GiB


class _Windows(nn.Module):
    """A model that takes the frames of whole windows."""

    def __init__(self, model: VideoModel, frames_per_unit: int) -> None:
        super().__init__()
        self.model, self.frames_per_unit = model, frames_per_unit

    def forward(self, frames: Tensor) -> Tensor:
        """Classify windows: (B, T, H, W, C) uint8 -> (B, K) logits."""
        return self.model(frames.unflatten(1, (-1, self.frames_per_unit)))


def export_onnx(entry: Entry, file: Path) -> float:
    """Write ``file``, and return how far its logits are from torch's, as a share of the largest one.

    The input ``frames`` is (B, T, H, W, 3) uint8, RGB at the model's size, of 1 to ``MAX_WINDOWS`` windows;
    the output ``logits`` is (B, K) float32. Labels, sampling and preprocessing are in the file's metadata.
    Weights of 1.9 GB or more lie beside it, in a file with the suffix ``.data``. It is written as a whole, or
    not at all.

    Raises:
        CannotExport: the model has an operation that torch.onnx cannot translate, or other logits there.
        MissingExtra: onnxscript or onnxruntime is not installed.
        OSError: the file cannot be written.
    """
    _check_installed()
    model, sampling = entry.load(), entry.spec.sampling
    clip = fixed_clip(entry.spec.preprocessing, sampling).flatten(0, 1)
    frames = torch.stack((clip, clip.flip(0)))
    program = _translate(_Windows(model, sampling.frames_per_unit), frames, entry)
    program.model.metadata_props.update(_metadata(entry))
    is_large = sum(each.numel() * each.element_size() for each in model.parameters()) > _ONE_FILE_BYTES
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as partial:
        written = Path(partial) / file.name
        program.save(written, external_data=is_large)
        apart = _difference(written, model, frames, sampling.frames_per_unit)
        if not apart <= TOLERANCE:
            raise CannotExport(
                f"{entry.spec.name} is not exported: its logits in ONNX Runtime would be {apart:.1e} apart, "
                f"{TOLERANCE:g} are allowed"
            )
        # The weights come first: without them, the file would be of no use.
        for part in sorted(Path(partial).iterdir(), key=lambda each: each == written):
            part.replace(file.with_name(part.name))
    return apart


def _check_installed() -> None:
    """Check that the libraries are there, before the model is loaded.

    Raises:
        MissingExtra: one is not.
    """
    try:
        import onnxruntime
        import onnxscript
    except ModuleNotFoundError:
        raise MissingExtra("ONNX needs onnxruntime and onnxscript: pip install 'tubelet[onnx]'") from None
    del onnxruntime, onnxscript


def _translate(model: _Windows, frames: Tensor, entry: Entry) -> Any:
    """Return the ONNX program of a model whose number of windows is open.

    Raises:
        CannotExport: torch cannot record or translate it.
    """
    windows = torch.export.Dim("windows", min=1, max=MAX_WINDOWS)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of libraries, about themselves
            return torch.onnx.export(
                model,
                (frames,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: windows},),
                verbose=False,
            )
    except Exception as error:  # torch raises anything where it cannot follow a model
        raise CannotExport(
            f"{entry.spec.name} {entry.spec.version}, of the family {entry.spec.family}, cannot be exported: "
            f"{one_line(error)[:300]}"
        ) from error


def _metadata(entry: Entry) -> dict[str, str]:
    """Return what one needs to use the file: values are text or JSON."""
    spec = entry.spec
    return {
        "name": spec.name,
        "version": spec.version,
        "fingerprint": entry.fingerprint,
        "licence": spec.licence,
        "activation": spec.activation,
        "labels": json.dumps(spec.labels, ensure_ascii=False),
        "sampling": json.dumps(asdict(spec.sampling)),
        "preprocessing": json.dumps(asdict(spec.preprocessing)),
    }


@torch.inference_mode()
def _difference(file: Path, model: VideoModel, frames: Tensor, frames_per_unit: int) -> float:
    """Return the largest difference of logits in ONNX Runtime, as a share of the largest logit.

    Windows go there one by one, in a batch of another size than the one that was recorded.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    wanted = _Windows(model, frames_per_unit)(frames)
    found = torch.cat(
        [torch.from_numpy(session.run([OUTPUT], {INPUT: each[None].numpy()})[0]) for each in frames]
    )
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)).item()
