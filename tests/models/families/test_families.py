"""What every family promises the engine: shapes, independence of the batch, shared units."""

import pytest
import torch

from tests.support.models import CASES, CLASSES, PREPROCESSING, SIZE, WIDTH, build, random_units
from tubelet.models.families.factorised import central_frame_
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.layers import PatchEmbed, TubeletEmbed
from tubelet.models.families.registry import Dims, build_model, build_on_meta, describe_mismatch
from tubelet.models.families.timm import TimmDims
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims


@pytest.mark.parametrize("family", CASES)
@torch.inference_mode()
def test_shapes(family: str) -> None:
    model, (t, s, _) = build(family), CASES[family]
    embeddings = model.encode(random_units(2 * s, t))
    assert len(embeddings) == 2 * s
    windows = embeddings.unflatten(0, (2, s))
    assert model.pool(windows).shape[0] == 2
    assert model.head(model.pool(windows)).shape == model.classify(windows).shape == (2, CLASSES)


@pytest.mark.parametrize("family", CASES)
@torch.inference_mode()
def test_a_linear_head_classifies_the_vector_of_a_window(family: str) -> None:
    model, (t, s, _) = build(family), CASES[family]
    windows = model.encode(random_units(2 * s, t)).unflatten(0, (2, s))
    logits = model.classify(windows)
    torch.testing.assert_close(model.head(model.pool(windows)), logits, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_head_with_an_activation_comes_before_the_mean() -> None:
    torch.manual_seed(0)
    model = build_model(ViTDims(16, WIDTH, 2, 3, 96, representation_dim=24), PREPROCESSING, CLASSES).eval()
    torch.nn.init.normal_(model.get_parameter("head.fc1.weight"))
    windows = model.encode(random_units(6, 1))[None]
    logits = model.classify(windows)
    torch.testing.assert_close(logits, torch.stack([model.head(unit) for unit in windows[0]]).mean(0)[None])
    assert (model.head(model.pool(windows)) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    "dims",
    [
        *(dims for _, _, dims in CASES.values()),
        TorchvisionDims("regnet_y_400mf", 1),
        FramewiseDims(torchvision=TorchvisionDims("regnet_y_400mf", 1)),
        FramewiseDims(timm=TimmDims("tf_efficientnet_lite0")),
    ],
    ids=str,
)
def test_a_model_on_meta_has_the_names_and_shapes_of_the_model(dims: Dims) -> None:
    state = build_model(dims, PREPROCESSING, CLASSES).state_dict()
    outline = build_on_meta(dims, PREPROCESSING, CLASSES)
    assert describe_mismatch(outline, {name: tuple(value.shape) for name, value in state.items()}) == ""
    assert outline.state_dict().keys() == state.keys()


@pytest.mark.parametrize("family", CASES)
@torch.inference_mode()
def test_in_a_batch_equals_alone(family: str) -> None:
    model, (t, s, _) = build(family), CASES[family]
    units = random_units(3 * s, t)
    together = model.encode(units)
    alone = torch.cat([model.encode(unit[None]) for unit in units])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    windows = together.unflatten(0, (3, s))
    torch.testing.assert_close(
        model.classify(windows), torch.cat([model.classify(w[None]) for w in windows]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", CASES)
@torch.inference_mode()
def test_overlapping_windows_from_shared_units_equal_whole_windows(family: str) -> None:
    model, (t, s, _) = build(family), CASES[family]
    units = random_units(s + 3, t)
    embeddings = model.encode(units)
    for first in range(4):
        whole = model(units[first : first + s][None])
        shared = model.classify(embeddings[first : first + s][None])
        torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_only_a_temporal_transformer_depends_on_unit_order() -> None:
    for family in CASES:
        model, ordered = build(family), family in ("factorised", "framewise")
        for parameter in model.parameters():
            parameter.mul_(5)  # attention that is far from uniform
        t, s, _ = CASES[family]
        windows = torch.randn(1, s, model.encode(random_units(1, t)).shape[1])
        relative_difference = (model.classify(windows) - model.classify(windows.flip(1))).abs().max() > 1e-3
        assert bool(relative_difference) == ordered, family


@torch.inference_mode()
def test_encode_normalises_pixels() -> None:
    model = build("vit")
    units = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None, None].expand(2, 1, 1, 1, 3)
    wanted = torch.tensor([[(0 - 0.4) / 0.2, -0.5 / 0.25, -0.6 / 0.3], [0.6 / 0.2, 0.5 / 0.25, 0.4 / 0.3]])
    torch.testing.assert_close(model.normalise(units)[:, 0, 0, 0], wanted)


@torch.inference_mode()
def test_embeddings_equal_convolutions() -> None:
    torch.manual_seed(3)
    patches, tubelets = PatchEmbed(8, 3, WIDTH), TubeletEmbed((2, 8, 16), 3, WIDTH)
    pictures, units = torch.randn(2, SIZE, SIZE, 3), torch.randn(2, 2, SIZE, SIZE, 3)
    convolved = patches.proj(pictures.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches(pictures), convolved, atol=1e-5, rtol=1e-5)
    convolved = tubelets.proj(units.permute(0, 4, 1, 2, 3)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tubelets(units), convolved, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_central_frame_initialisation_equals_the_image_model() -> None:
    torch.manual_seed(4)
    image, video = PatchEmbed(8, 3, WIDTH), TubeletEmbed((4, 8, 8), 3, WIDTH)
    central_frame_(video.proj, image.proj.weight)
    video.proj.load_state_dict(image.proj.state_dict() | {"weight": video.proj.weight})
    units = torch.randn(2, 4, SIZE, SIZE, 3)
    torch.testing.assert_close(video(units), image(units[:, 2]), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="image kernel"):
        central_frame_(video.proj, torch.zeros(WIDTH, 3, 16, 16))
