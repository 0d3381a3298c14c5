"""What every peer does for a video, as its users would: the frames of one window over all of it, the model.

The model is the very module that tubelet loads, eager, under inference mode, on a GPU if there is one, in the
precision that tubelet takes by itself there.
"""

from pathlib import Path

import numpy as np
import torch

from tests.bench.peers.decoding import WindowDecoder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.video_model import VideoModel


class Recogniser(WindowDecoder):
    """Bytes of a video -> frames of a window -> logits."""

    def __init__(self, store: Path, name: str) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = choose_dtype("auto", self._device)
        entry = ModelStore(store).find(name)
        super().__init__(entry.spec)
        self._model: VideoModel = entry.load().to(self._device, dtype)

    @torch.inference_mode()
    def logits(self, clips: list[np.ndarray]) -> np.ndarray:
        """B windows of (S, t, H, W, C) -> (B, K)"""
        batch = torch.from_numpy(np.stack(clips)).to(self._device)
        return self._model(batch).float().cpu().numpy()
