"""What transformers' configs leave out or turn off, and sizes of two numbers: taken as it takes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from av import VideoFrame
from PIL import Image

from tests.support.checkpoints import CASES, COMMON, CROP, FRAMES, SIZE, VIDEO, bring, clips, edit, ours, save
from tubelet.models.checkpoints.huggingface_config import (
    complete_config,
    complete_processor,
    read_preprocessing,
)
from tubelet.models.errors import CannotImport
from tubelet.models.families.joint import JointDims
from tubelet.models.families.vit import ViTDims
from tubelet.service.decode.pixels.rgb_converter import RgbConverter

hf: Any = transformers
CONFIGS = {"vivit": "Vivit", "videomae": "VideoMAE", "timesformer": "Timesformer", "vit": "ViT"}
PROCESSORS = ["VivitImage", "VideoMAEImage", "VideoMAEVideo", "TimesformerVideo", "ViTImage", "DeiTImage"]
PROCESSORS += ["VJEPA2Video"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_is_completed_as_transformers_does(kind: str) -> None:
    theirs = getattr(hf, f"{CONFIGS[kind]}Config")().to_dict()
    filled = complete_config(kind, {})
    assert filled
    assert {key: theirs[key] for key in filled} == filled


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processors_config_is_completed_as_transformers_does(name: str) -> None:
    theirs = getattr(hf, f"{name}Processor")()
    key = "video_processor_type" if name.endswith("Video") else "image_processor_type"
    filled = complete_processor("", {key: f"{name}Processor", "image_mean": None})
    del filled[key]
    size = {side: value for side, value in dict(theirs.size).items() if value is not None}
    assert filled.pop("size") == size
    offset = filled.pop("offset")
    assert offset == getattr(theirs, "offset", False)
    for key in ("image_mean", "image_std"):
        assert list(np.broadcast_to(filled.pop(key), 3)) == list(getattr(theirs, key))
    # None there is what is not done.
    assert {key: getattr(theirs, key) or False for key in filled} == filled


def without(folder: Path, file: str, *keys: str) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({k: v for k, v in content.items() if k not in keys}))


def theirs_logits(folder: Path, kind: str, frames: torch.Tensor) -> torch.Tensor:
    """transformers' logits of a folder by its own model and processor, for pictures of the model's size."""
    if kind == "vit":
        model = hf.AutoModelForImageClassification.from_pretrained(folder).eval()
        processor = hf.AutoImageProcessor.from_pretrained(folder)
        pixels = processor(list(frames.flatten(0, 1).numpy()), return_tensors="pt")["pixel_values"]
        return model(pixels).logits.unflatten(0, frames.shape[:2]).mean(dim=1)
    model = hf.AutoModelForVideoClassification.from_pretrained(folder).eval()
    named = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    processor = getattr(hf, named).from_pretrained(folder)
    made = [processor(list(clip.numpy()), return_tensors="pt")["pixel_values"] for clip in frames]
    return model(torch.cat(made).float()).logits


@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_logits_of_a_config_without_defaults(tmp_path: Path, kind: str) -> None:
    save(kind, tmp_path / "theirs")
    if kind == "vivit":
        edit(tmp_path / "theirs", "preprocessor_config.json", size={"shortest_edge": SIZE})
    without(
        tmp_path / "theirs",
        "config.json",
        *("architectures", "hidden_act", "layer_norm_eps", "num_channels", "use_mean_pooling"),
        *("attention_type", "problem_type", "qkv_bias", "qv_bias", "label2id"),
    )
    usual = ("do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "resample", "offset")
    without(tmp_path / "theirs", "preprocessor_config.json", *usual, "rescale_factor")
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    wanted = theirs_logits(tmp_path / "theirs", kind, clips(2))
    torch.testing.assert_close(ours(entry, clips(2)), wanted, atol=1e-5, rtol=1e-5)


STEPS: list[dict[str, object]] = [
    {"do_normalize": False},
    {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 70.0, 80.0]},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 100},
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("kind", ["videomae", "vit"])
@torch.inference_mode()
def test_logits_with_a_processor_that_skips_steps(
    tmp_path: Path, kind: str, steps: dict[str, object]
) -> None:
    save(kind, tmp_path / "theirs")
    edit(tmp_path / "theirs", "preprocessor_config.json", **steps)
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    wanted = theirs_logits(tmp_path / "theirs", kind, clips(2))
    # Pixels up to 255 make large logits.
    torch.testing.assert_close(ours(entry, clips(2)), wanted, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_one_number_stands_for_three_colours(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    edit(tmp_path / "theirs", "preprocessor_config.json", image_mean=[0.3] * 3, image_std=[0.2] * 3)
    wanted = theirs_logits(tmp_path / "theirs", "vit", clips(1))
    edit(tmp_path / "theirs", "preprocessor_config.json", image_mean=0.3, image_std=0.2)
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    torch.testing.assert_close(ours(entry, clips(1)), wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    model = save("vit", tmp_path / "theirs")
    for name in ("config.json", "preprocessor_config.json"):
        file = tmp_path / "theirs" / name
        file.write_text("\ufeff" + file.read_text())
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    assert entry.load()(clips(1)[:, :, None]).shape == (1, model.config.num_labels)


def build_videomae(image_size: Any, patch_size: Any) -> Any:
    sizes = VIDEO | {"image_size": image_size}
    return hf.VideoMAEForVideoClassification(
        hf.VideoMAEConfig(**sizes, tubelet_size=2, patch_size=patch_size)
    )


def build_vivit(image_size: Any, patch_size: Any) -> Any:
    rows, columns = np.broadcast_to(patch_size, 2).tolist()
    sizes = VIDEO | {"image_size": image_size}
    return hf.VivitForVideoClassification(hf.VivitConfig(**sizes, tubelet_size=[2, rows, columns]))


def build_vit(image_size: Any, patch_size: Any) -> Any:
    return hf.ViTForImageClassification(
        hf.ViTConfig(**COMMON | {"image_size": image_size}, patch_size=patch_size)
    )


BUILDERS: dict[str, Callable[[Any, Any], Any]] = {
    "videomae": build_videomae,
    "vivit": build_vivit,
    "vit": build_vit,
}


@pytest.mark.parametrize(
    ("image_size", "patch_size"), [(32, [8, 8]), ([32, 48], 8), ([48, 32], [8, 8]), ([32, 48], [8, 16])]
)
@pytest.mark.parametrize("kind", BUILDERS)
@torch.inference_mode()
def test_sizes_of_two_numbers(tmp_path: Path, kind: str, image_size: Any, patch_size: Any) -> None:
    torch.manual_seed(0)
    model = BUILDERS[kind](image_size, patch_size).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "theirs")
    height, width = np.broadcast_to(image_size, 2).tolist()
    size = {"height": height, "width": width}
    processor = CASES[kind][1]()
    processor.save_pretrained(tmp_path / "theirs")
    resized = size if kind == "vit" else {"shortest_edge": min(height, width)}
    cut = {} if kind == "vit" else {"crop_size": size}
    edit(tmp_path / "theirs", "preprocessor_config.json", size=resized, **cut)
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    assert (entry.spec.preprocessing.height, entry.spec.preprocessing.width) == (height, width)
    frames = torch.randint(0, 256, (2, FRAMES, height, width, 3), dtype=torch.uint8)
    wanted = theirs_logits(tmp_path / "theirs", kind, frames)
    torch.testing.assert_close(ours(entry, frames), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["videomae", "timesformer", "vit"])
def test_a_pair_of_equal_sides_equals_one_number(tmp_path: Path, kind: str) -> None:
    save(kind, tmp_path / "theirs")
    plain = bring(tmp_path / "theirs", tmp_path / "plain")
    edit(tmp_path / "theirs", "config.json", patch_size=[8, 8], image_size=[SIZE, SIZE])
    paired = bring(tmp_path / "theirs", tmp_path / "paired")
    assert paired.spec == plain.spec
    assert torch.equal(ours(paired, clips(1)), ours(plain, clips(1)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_size": 7}, "patches of 7 x 7 pixels do not fill a picture of 32 x 32"),
        ({"patch_size": [8, 8, 8]}, r"patch_size in its config is \[8, 8, 8\], not one number or height and"),
        ({"patch_size": 0}, "is malformed: .* zero"),
        ({"patch_size": "8"}, "patch_size in its config is '8', not one number or height and width"),
        ({"image_size": {"a": 1}}, "image_size in its config is {'a': 1}, not one number or height and"),
        ({"image_size": [32, 48]}, "makes pictures of 32 x 32 pixels, the model takes 32 x 48"),
    ],
)
def test_sizes_that_make_no_sense_are_named(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    save("videomae", tmp_path / "theirs")
    edit(tmp_path / "theirs", "config.json", **changes)
    with pytest.raises(CannotImport, match=says) as refused:
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not any(name in str(refused.value) for name in (JointDims.__name__, ViTDims.__name__, "Preproc"))


def painted(picture: np.ndarray, folder: Path, size: tuple[int, int]) -> torch.Tensor:
    """A frame as a decode worker makes it for the processor of a folder: (3, h, w), normalised."""
    read = read_preprocessing(folder, "videomae", size)
    frame = VideoFrame.from_ndarray(picture, "rgb24")
    pixels = torch.from_numpy(RgbConverter(read, None, {"centre"}).convert(frame).crop("centre").copy())
    return ((pixels / 255 - torch.tensor(read.mean)) / torch.tensor(read.std)).permute(2, 0, 1)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (40, 44), (90, 41), (64, 48), (33, 100)])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((32, 32), CROP | {"resample": 0}),
        ((32, 48), {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 48}}),
        ((48, 32), {"size": {"shortest_edge": 32}, "crop_size": {"height": 48, "width": 32}, "resample": 3}),
    ],
)
def test_pictures_are_resized_cropped_and_padded_as_in_transformers(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int], options: dict[str, Any]
) -> None:
    """Pictures narrower than the crop are framed in black."""
    processor = hf.VideoMAEImageProcessor(**options)
    processor.save_pretrained(tmp_path)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    picture = np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    wanted = processor([picture], return_tensors="pt")["pixel_values"][0, 0]
    # Two levels of 255: both round once a direction of the filter.
    torch.testing.assert_close(painted(picture, tmp_path, size), wanted, atol=2.01 / 127.5, rtol=0)
