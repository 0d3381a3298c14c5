"""Small checkpoints made by transformers, edited and imported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ModelStore

hf: Any = transformers
SIZE, FRAMES = 32, 4
LABELS = tuple(f"label {number}" for number in range(7))
COMMON: Any = {
    "image_size": SIZE,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "id2label": dict(enumerate(LABELS)),
}
VIDEO: Any = COMMON | {"num_frames": FRAMES}
CROP = {"crop_size": {"height": SIZE, "width": SIZE}, "size": {"shortest_edge": SIZE}}
# Model type -> (model, processor's options).
CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "vivit": (
        lambda: hf.VivitForVideoClassification(hf.VivitConfig(**VIDEO, tubelet_size=[2, 8, 8])),
        lambda: hf.VivitImageProcessor(**CROP | {"size": {"shortest_edge": 36}}),
    ),
    "videomae": (
        lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8)),
        lambda: hf.VideoMAEImageProcessor(**CROP),
    ),
    "timesformer": (
        lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(**VIDEO, patch_size=8)),
        lambda: hf.VideoMAEImageProcessor(**CROP, image_mean=[0.45] * 3, image_std=[0.225] * 3),
    ),
    "vjepa2": (
        lambda: hf.VJEPA2ForVideoClassification(
            hf.VJEPA2Config(
                crop_size=SIZE,
                frames_per_clip=FRAMES,
                patch_size=8,
                hidden_size=48,
                num_hidden_layers=2,
                num_attention_heads=3,
                num_pooler_layers=1,
                pred_hidden_size=48,
                pred_num_attention_heads=3,
                pred_num_hidden_layers=1,
                id2label=COMMON["id2label"],
            )
        ),
        lambda: hf.VJEPA2VideoProcessor(crop_size=SIZE),
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**COMMON, patch_size=8)),
        lambda: hf.ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
    ),
}


def save(kind: str, folder: Path) -> Any:
    """A random model of transformers in a folder, with its processor; returns the model."""
    torch.manual_seed(0)
    model, processor = (build() for build in CASES[kind])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def bring(folder: Path, store: Path) -> Entry:
    store_model(read_source(str(folder)), store, "imported", "1")
    return ModelStore(store).find("imported")


def clips(count: int) -> torch.Tensor:
    """(count, T, H, W, 3) uint8: coarse noise, so that patches differ."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (count, FRAMES, SIZE // 4, SIZE // 4, 3), generator=generator)
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)


def reference(model: Any, kind: str, folder: Path, frames: torch.Tensor) -> torch.Tensor:
    """transformers' logits (B, K) for pictures that need no resizing."""
    processor = CASES[kind][1]()
    if kind == "vjepa2":
        videos = list(frames.permute(0, 1, 4, 2, 3))
        return model(**processor(videos, do_resize=False, do_sample_frames=False, return_tensors="pt")).logits
    same_size = {"do_resize": False} if kind == "vivit" else {}
    if kind == "vit":
        pixels = processor(list(frames.flatten(0, 1).numpy()), return_tensors="pt")["pixel_values"]
        return model(pixels).logits.unflatten(0, frames.shape[:2]).mean(dim=1)
    pixels = [
        processor(list(clip.numpy()), return_tensors="pt", **same_size)["pixel_values"] for clip in frames
    ]
    return model(torch.cat(pixels)).logits


def ours(entry: Entry, frames: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    sampling = entry.spec.sampling
    units = frames.unflatten(1, (-1, sampling.frames_per_unit))
    return entry.load().to(dtype)(units).float()


def edit(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
