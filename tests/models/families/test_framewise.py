"""An image model as a spatial stage: its own logits without a temporal transformer, an order with one."""

import sys
from typing import Any

import pytest
import timm
import torch
import torchvision

from tests.support.models import PREPROCESSING, WIDTH, random_units
from tubelet.models.errors import MissingExtra
from tubelet.models.families.framewise import Framewise, FramewiseDims, TemporalDims
from tubelet.models.families.timm import TimmDims
from tubelet.models.families.torchvision import TorchvisionDims, head_of
from tubelet.models.families.vit import ViT, ViTDims

VIT = ViTDims(16, WIDTH, 2, 3, 96)
TORCHVISION = ["resnet18", "efficientnet_b0", "regnet_y_400mf"]
TIMM = {"tf_efficientnet_lite0": "classifier", "resnet10t": "fc", "mobilenetv3_small_050": "classifier"}


def as_theirs(model: Framewise, units: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W, C) uint8 -> the pixels that an image model of a library takes."""
    return model.normalise(units)[:, 0].permute(0, 3, 1, 2)


def calibrated(net: Any) -> Any:
    """``net`` in eval mode, its norms set by random pictures: a signal comes through random layers."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    net.train()(torch.randn(8, 3, 32, 32))
    return net.eval()


def with_weights_of(dims: FramewiseDims, net: Any, head: str) -> Framewise:
    """A framewise model without a temporal transformer that has the weights of a library's image model."""
    model = Framewise(dims, PREPROCESSING, 5).eval()
    state = {f"image.net.{name}": value for name, value in net.state_dict().items()}
    for name in ("weight", "bias"):
        state[f"head.{name}"] = state.pop(f"image.net.{head}.{name}")
    model.load_state_dict(state)
    return model


def assert_gives(model: Framewise, units: torch.Tensor, wanted: torch.Tensor) -> None:
    assert wanted.std() > 1e-4
    embeddings = model.encode(units)
    torch.testing.assert_close(model.classify(embeddings[:, None]), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.classify(embeddings[None]), wanted.mean(0)[None], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_frame_has_the_logits_of_the_vit() -> None:
    torch.manual_seed(0)
    image, model = (
        ViT(VIT, PREPROCESSING, 5).eval(),
        Framewise(FramewiseDims(vit=VIT), PREPROCESSING, 5).eval(),
    )
    state = {f"image.{name}": value for name, value in image.state_dict().items()}
    model.load_state_dict({name.replace("image.head.", "head."): value for name, value in state.items()})
    units = random_units(4, 1)
    assert_gives(model, units, image.classify(image.encode(units)[:, None]))


@pytest.mark.parametrize("name", TORCHVISION)
@torch.inference_mode()
def test_a_frame_has_the_logits_of_torchvisions_model(name: str) -> None:
    torch.manual_seed(0)
    theirs = calibrated(torchvision.models.get_model(name, weights=None, num_classes=5))
    model = with_weights_of(FramewiseDims(torchvision=TorchvisionDims(name, 1)), theirs, head_of(name))
    units = random_units(4, 1)
    assert_gives(model, units, theirs(as_theirs(model, units)))


@pytest.mark.parametrize("name", TIMM)
@torch.inference_mode()
def test_a_frame_has_the_logits_of_timms_model(name: str) -> None:
    torch.manual_seed(0)
    theirs = calibrated(timm.create_model(name, num_classes=5))
    model = with_weights_of(FramewiseDims(timm=TimmDims(name)), theirs, TIMM[name])
    units = random_units(4, 1)
    assert_gives(model, units, theirs(as_theirs(model, units)))


@torch.inference_mode()
def test_the_transformer_may_be_of_another_width() -> None:
    torch.manual_seed(0)
    dims = FramewiseDims(timm=TimmDims("resnet10t"), temporal=TemporalDims(6, 32, 1, 2, 64))
    model = Framewise(dims, PREPROCESSING, 5).eval()
    embeddings = model.encode(random_units(12, 1))
    assert embeddings.shape == (12, 512)
    windows = embeddings.unflatten(0, (2, 6))
    assert model.pool(windows).shape == (2, 32)
    assert model.classify(windows).shape == (2, 5)


@torch.inference_mode()
def test_the_change_from_unit_to_unit_is_half_of_the_vector() -> None:
    model = Framewise(FramewiseDims(vit=VIT, pool="mean_and_change"), PREPROCESSING, 5).eval()
    windows = torch.tensor([[0.0, 3.0, 1.0], [5.0, 5.0, 5.0]])[..., None].expand(2, 3, WIDTH)
    vectors = model.pool(windows)
    assert vectors.shape == (2, 2 * WIDTH)
    torch.testing.assert_close(vectors[:, 0], torch.tensor([4 / 3, 5.0]))
    torch.testing.assert_close(vectors[:, WIDTH], torch.tensor([2.5, 0.0]))
    assert model.classify(windows).shape == (2, 5)
    assert (model.pool(windows[:, :1])[:, WIDTH:] == 0).all()


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        (TorchvisionDims("squeezenet1_1", 1), "squeezenet1_1 does not embed single frames"),
        (TorchvisionDims("r3d_18", 16), "r3d_18 does not embed single frames"),
    ],
)
def test_models_without_an_embedding_of_a_frame_are_refused(dims: TorchvisionDims, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Framewise(FramewiseDims(torchvision=dims), PREPROCESSING, 5)


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "resnet0"])
def test_a_name_that_is_no_architecture_of_timm_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"has no architecture '{name}'"):
        Framewise(FramewiseDims(timm=TimmDims(name)), PREPROCESSING, 5)


def test_one_image_model_is_wanted() -> None:
    with pytest.raises(ValueError, match="one image model is wanted, vit, torchvision or timm; 0 are given"):
        FramewiseDims()
    with pytest.raises(ValueError, match="2 are given"):
        FramewiseDims(vit=VIT, timm=TimmDims("resnet18"))
    with pytest.raises(ValueError, match="takes the place of pool = 'mean_and_change'"):
        FramewiseDims(vit=VIT, temporal=TemporalDims(4, 32, 1, 2, 64), pool="mean_and_change")


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tubelet\[backbone\]'"):
        Framewise(FramewiseDims(timm=TimmDims("resnet18")), PREPROCESSING, 5)
