"""Small models to train from random weights: every family has one, and says what it cannot do."""

import pytest
import torch

from tubelet.models.errors import CannotTrain
from tubelet.models.families.registry import DIMS, build_model
from tubelet.models.spec import Family
from tubelet.models.training.scratch import FRAMES, SCRATCH_FAMILIES, scratch

VARIANTS = ["r3d_18", "mvit_v2_s", "resnet18", "googlenet"]


@pytest.mark.parametrize("family", [family for family in SCRATCH_FAMILIES if family != "torchvision"])
def test_a_small_model_of_each_family_learns_from_a_window(family: Family) -> None:
    torch.manual_seed(0)
    found = scratch(family)
    assert isinstance(found.dims, DIMS[family])
    assert found.sampling.frames_per_window == FRAMES
    model = build_model(found.dims, found.preprocessing, 3)
    height, width = found.preprocessing.height, found.preprocessing.width
    units, frames = found.sampling.units_per_window, found.sampling.frames_per_unit
    logits = model(torch.randint(0, 256, (2, units, frames, height, width, 3), dtype=torch.uint8))
    assert logits.shape == (2, 3)
    logits.logsumexp(1).sum().backward()
    unused = [name for name, each in model.named_parameters() if each.grad is None]
    assert not unused


@pytest.mark.parametrize("name", VARIANTS)
def test_models_of_torchvision_see_as_many_frames(name: str) -> None:
    found = scratch("torchvision", name)
    assert found.sampling.frames_per_window == FRAMES
    state = build_model(found.dims, found.preprocessing, 3).state_dict()
    assert not [key for key in state if "aux" in key.lower()]


@pytest.mark.parametrize(
    ("family", "variant", "says"),
    [
        ("hf", "", "no sizes of family 'hf' are known to train from random weights; there are vit,"),
        ("torchvision", "", "needs --variant, one of mc3_18, .* such as resnet18; found ''"),
        ("torchvision", "retinanet_resnet50_fpn", "found 'retinanet_resnet50_fpn'"),
        ("torchvision", "vit_b_16", "vit_b_16 does not take 1 frames of 64 x 64 pixels: "),
        ("joint", "r3d_18", "--variant names a model of --family torchvision; found joint and 'r3d_18'"),
    ],
)
def test_what_cannot_be_trained_is_said(family: str, variant: str, says: str) -> None:
    with pytest.raises(CannotTrain, match=says):
        scratch(family, variant)
