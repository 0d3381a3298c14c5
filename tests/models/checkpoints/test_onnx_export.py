"""Models as ONNX files: the logits of ONNX Runtime beside torch's and transformers', for every family."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch

from tests.support.checkpoints import CASES as CHECKPOINTS
from tests.support.checkpoints import bring, clips, reference, save
from tests.support.models import CASES, CLASSES, PREPROCESSING, build
from tubelet.models.checkpoints import onnx_export
from tubelet.models.checkpoints.onnx_export import TOLERANCE, export_onnx
from tubelet.models.errors import CannotExport
from tubelet.models.families.registry import DIMS, family_of
from tubelet.models.repository.model_folder import Entry, read_folder, write_folder
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Family, ModelSpec, Sampling

QUICK = ("factorised",)


def stored(case: str, folder: Path) -> Entry:
    """Write the small model of a case, and read its folder."""
    t, s, dims = CASES[case]
    spec = ModelSpec(
        name="small",
        version="1",
        family=family_of(dims),
        description="random weights",
        licence="none",
        labels=tuple(f"läbel {number}" for number in range(CLASSES)),
        sampling=Sampling(t, s, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0),
        preprocessing=PREPROCESSING,
    )
    write_folder(folder, spec, dims, build(case), "card")
    return read_folder(folder)


def run(file: Path, frames: np.ndarray) -> np.ndarray:
    """Return the logits of frames (B, T, H, W, 3) in ONNX Runtime."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"frames": frames})
    return np.asarray(logits)


def check(entry: Entry, file: Path) -> None:
    """Compare logits of batches of several sizes, on noise that the export did not see."""
    sampling, size = entry.spec.sampling, entry.spec.preprocessing
    model, t = entry.load(), sampling.frames_per_unit
    generator = torch.Generator().manual_seed(3)
    for windows in (1, 3):
        shape = (windows, sampling.frames_per_window, size.height, size.width, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            wanted = model(frames.unflatten(1, (-1, t))).numpy()
        found = run(file, frames.numpy())
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_logits_of_every_family_are_torchs(case: str, tmp_path: Path) -> None:
    entry = stored(case, tmp_path / "1")
    assert export_onnx(entry, tmp_path / "model.onnx") <= TOLERANCE
    assert {each.name for each in tmp_path.iterdir()} == {"1", "model.onnx"}
    check(entry, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", [spec.name for spec in ModelStore(ZOO).specs()])
def test_logits_of_the_embedded_models_are_torchs(name: str, tmp_path: Path) -> None:
    entry = ModelStore(ZOO).find(name)
    export_onnx(entry, tmp_path / "model.onnx")
    check(entry, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_logits_of_imported_models_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = save(kind, tmp_path / "theirs")
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    export_onnx(entry, tmp_path / "model.onnx")
    frames = clips(2)
    # An image model reads more frames; the mean over repeated ones is the same.
    frames = frames.repeat(1, entry.spec.sampling.frames_per_window // frames.shape[1], 1, 1, 1)
    with torch.inference_mode():
        wanted = reference(theirs, kind, tmp_path / "theirs", frames).numpy()
    found = run(tmp_path / "model.onnx", frames.numpy())
    assert np.abs(found - wanted).max() <= 10 * TOLERANCE * np.abs(wanted).max()


def test_every_family_is_tested() -> None:
    tested = {kind for kind in DIMS.values() for _, _, dims in CASES.values() if isinstance(dims, kind)}
    assert {family for family in get_args(Family) if DIMS[family] not in tested} == {"hf"}


def test_the_file_says_how_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_ONE_FILE_BYTES", 0)  # as with the weights of a large model
    entry = stored("vit", tmp_path / "1")
    export_onnx(entry, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").exists()
    check(entry, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["labels"]) == list(entry.spec.labels)
    assert json.loads(found["sampling"])["frames_per_unit"] == 1
    assert json.loads(found["preprocessing"])["mean"] == list(PREPROCESSING.mean)
    assert (found["fingerprint"], found["activation"]) == (entry.fingerprint, "softmax")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("frames", "tensor(uint8)", [6, 32, 32, 3])


def test_what_cannot_be_exported_is_said_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = stored("vit", tmp_path / "1")

    def branches(self: Any, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0] if float(windows.sum()) > 0 else windows[:, 1]

    monkeypatch.setattr("tubelet.models.video_model.AveragingModel.classify", branches)
    with pytest.raises(CannotExport, match="small 1, of the family vit, cannot be exported: "):
        export_onnx(entry, tmp_path / "model.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["1"]
