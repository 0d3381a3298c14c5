"""A model under test: its maps, and what its answer loses and gains by them.

B clips, T frames in a clip, H W C pixels, S units in a window, t frames in a unit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.bench.faithful.maps import Map
from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Method, Question
from tubelet.models.spec import ModelSpec
from tubelet.models.training.samples import as_units
from tubelet.models.video_model import VideoModel

FRACTIONS = np.linspace(0.0, 1.0, 9)[1:-1]  # of the patches, deleted or inserted


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and its spec."""

    model: VideoModel
    spec: ModelSpec

    def answer(self, clips: Tensor) -> Tensor:
        """Return the probabilities of labels: (B, T, H, W, C) -> (B, K)."""
        return self.model(as_units(clips, self.spec.sampling.frames_per_unit)).softmax(dim=1)

    def explain(self, frames: Tensor, label: str, method: Method, model: VideoModel | None = None) -> Map:
        """Explain a clip; the map sums to 1, unless all of it is on no patch."""
        units = as_units(frames[None], self.spec.sampling.frames_per_unit)[0]
        question = Question(method, label if method in ("relevance", "occlusion") else None)
        values = explain(model or self.model, self.spec, units, question).map.double().numpy()
        return values / max(values.sum(), 1e-12)

    def curve(self, frames: Tensor, label: str, values: Map, *, insert: bool) -> float:
        """Return the mean probability of a label while patches are deleted or inserted, the highest first."""
        median = frames.median(dim=0).values.expand_as(frames)
        start, end = (median, frames) if insert else (frames, median)
        order = np.argsort(-values, axis=None, kind="stable")
        clips = []
        for fraction in FRACTIONS:
            chosen = np.zeros(values.size, dtype=bool)
            chosen[order[: round(fraction * values.size)]] = True
            pixels = torch.from_numpy(chosen.reshape(values.shape))
            for dim, (size, parts) in enumerate(zip(frames.shape, values.shape, strict=False)):
                pixels = pixels.repeat_interleave(size // parts, dim)
            clips.append(torch.where(pixels[..., None], end, start))
        return float(self.answer(torch.stack(clips))[:, self.spec.labels.index(label)].mean())
