"""R(2+1)D against torchvision's, which has the sizes of the paper, and its small sizes in the store."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from tests.support.models import CASES, CLASSES, PREPROCESSING, build, random_units
from tubelet.models.families.r2plus1d import R2Plus1D, R2Plus1DDims
from tubelet.models.flops import window_flops
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import ModelSpec, Sampling

PAPER = R2Plus1DDims(8, 45, (64, 128, 256, 512), (2, 2, 2, 2))
# torchvision's names -> ours.
RENAMES = {
    r"^stem\.0\.": "stem.spatial.",
    r"^stem\.1\.": "stem.bn.",
    r"^stem\.3\.": "stem.temporal.",
    r"^stem\.4\.": "bn.",
    r"\.(conv.)\.0\.0\.": r".\1.spatial.",
    r"\.(conv.)\.0\.1\.": r".\1.bn.",
    r"\.(conv.)\.0\.3\.": r".\1.temporal.",
    r"\.conv(.)\.1\.": r".bn\1.",
    r"^fc\.": "head.",
}
LAYER = re.compile(r"^layer(\d)\.")


def ours(name: str) -> str:
    """Return our name of torchvision's parameter."""
    for pattern, new in RENAMES.items():
        name = re.sub(pattern, new, name)
    return LAYER.sub(lambda found: f"stages.{int(found[1]) - 1}.", name)


@pytest.fixture
def theirs() -> Any:
    """torchvision's R(2+1)D, its norms set by random clips: a signal comes through random layers."""
    torch.manual_seed(0)
    net = torchvision.models.video.r2plus1d_18(weights=None, num_classes=CLASSES)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(2, 3, 8, 32, 32))
    return net.eval()


@torch.inference_mode()
def test_a_clip_has_the_logits_of_torchvisions_model(theirs: Any) -> None:
    model = R2Plus1D(PAPER, PREPROCESSING, CLASSES).eval()
    model.load_state_dict({ours(name): value for name, value in theirs.state_dict().items()})
    units = random_units(2, 8)
    wanted = theirs(model.normalise(units).permute(0, 4, 1, 2, 3))
    assert wanted.std() > 1e-3
    embeddings = model.encode(units)
    assert embeddings.shape == (2, 512)
    torch.testing.assert_close(model.classify(embeddings[:, None]), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.classify(embeddings[None]), wanted.mean(0)[None], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_order_of_frames_in_a_clip_matters() -> None:
    model, units = build("r2plus1d"), random_units(1, 4)
    assert (model.encode(units) - model.encode(units.flip(1))).abs().max() > 1e-3


@torch.inference_mode()
def test_a_model_of_the_store_has_the_sizes_and_logits_that_were_written(tmp_path: Path) -> None:
    model, (t, s, dims) = build("r2plus1d"), CASES["r2plus1d"]
    sampling = Sampling(t, s, window_s=2, stride_s=1, min_window_s=1, max_window_s=4)
    labels = tuple(f"label {number}" for number in range(CLASSES))
    spec = ModelSpec("small", "1", "r2plus1d", "", "none", labels, sampling, PREPROCESSING)
    write_folder(tmp_path / "small", spec, dims, model, "")
    entry = ModelStore(tmp_path).find("small")
    assert entry.dims == dims
    clips = random_units(s, t)[None]
    torch.testing.assert_close(entry.load()(clips), model(clips), atol=0, rtol=0)


def test_flops_are_those_of_the_convolutions() -> None:
    dims = R2Plus1DDims(4, 6, (8,), (1,))
    sampling = Sampling(4, 2, window_s=2, stride_s=1, min_window_s=1, max_window_s=4)
    flops = window_flops(dims, PREPROCESSING, sampling, CLASSES)
    hidden = 3 * 9 * 8 * 8 // (9 * 8 + 3 * 8)
    products = 3 * 49 * 6 + 6 * 3 * 8 + 2 * (8 * 9 * hidden + hidden * 3 * 8)  # of a position
    assert flops.spatial == 2 * 2 * 4 * 16 * 16 * products
    assert flops.temporal == 2 * 2 * 8 * CLASSES


@pytest.mark.parametrize(
    ("widths", "depths", "says"),
    [((8, 16), (1,), "2 widths and 1 depths"), ((), (), "0 widths"), ((8, 0), (1, 1), "must be positive")],
)
def test_sizes_that_are_none_are_refused(widths: tuple[int, ...], depths: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        R2Plus1DDims(8, 6, widths, depths)
