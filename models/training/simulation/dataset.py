"""Batches of simulated camera moves, each determined by a seed and its number.

B windows, T frames in a window, H W C pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tubelet.models.spec import Sampling
from tubelet.models.training.samples import Batch, as_units
from tubelet.models.training.simulation.camera_path import LABELS, Path, simulate
from tubelet.models.training.simulation.degradations import degrade
from tubelet.models.training.simulation.foreground import PLAIN, Foreground, draw_object
from tubelet.models.training.simulation.render import SHRINK, place_in_source, render_view
from tubelet.models.training.simulation.sources import RATE_HZ, Source
from tubelet.models.training.simulation.symmetries import mirrored

WINDOW_S = (0.8, 4.2)  # length of a window, seconds, log-uniform: a little more than the service allows
MOVING_SHARE = 0.5  # share of the windows over sources with moving objects


class SimulatedMoves(Dataset[Batch]):
    """Simulated camera moves. Batch ``i`` of a seed is always the same: a run can resume at any step.

    Frames have ``size`` x ``size`` pixels. A window has the units of ``sampling``. ``foreground`` says what
    moves before the camera.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sampling: Sampling,
        size: int,
        *,
        seed: int,
        batches: int,
        batch_size: int = 32,
        foreground: Foreground = PLAIN,
    ) -> None:
        self.stills = [source for source in sources if not source.moving]
        self.movies = [source for source in sources if source.moving]
        self.sampling, self.size = sampling, size
        self.seed, self.batches, self.batch_size = seed, batches, batch_size
        self.foreground = foreground

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        # Half a batch is rendered; the other half is the same windows, mirrored, rotated or reversed.
        half = self.batch_size // 2
        wanted = rng.permutation((index * half + np.arange(half)) % len(LABELS))
        rendered, flows = zip(*(self._window(LABELS[label], rng) for label in wanted), strict=True)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pixels = degrade(torch.stack(rendered), generator).mul_(255).round_().to(torch.uint8)
        first = (
            rearrange(pixels, "b t c h w -> b t h w c"),
            torch.from_numpy(wanted),
            torch.from_numpy(np.stack(flows)).float(),
        )
        second = mirrored(*first, torch.randint(0, 2, (half, 4), generator=generator).bool())
        clips, labels, flow = map(torch.cat, zip(first, second, strict=True))
        return Batch(as_units(clips, self.sampling.frames_per_unit), labels, flow)

    def _window(self, label: str, rng: Generator) -> tuple[Tensor, NDArray[np.float64]]:
        """Render a window with the move ``label``: -> pixels (T, 3, H, W) in 0..1, flow (T - 1, 4)."""
        window_s = float(np.exp(rng.uniform(*np.log(WINDOW_S))))
        while True:
            source = self.draw_source(rng, label)
            path = simulate(label, window_s, self.sampling.frames_per_window, rng)
            clip = self.film(source, path, rng)
            if clip is not None:
                return clip, path.flow()
            window_s = max(window_s * SHRINK, WINDOW_S[0])

    def draw_source(self, rng: Generator, label: str = "") -> Source:
        """Draw a source at random, for a window with the move ``label``.

        It moves in ``MOVING_SHARE`` of the windows, or as the foreground says for static ones.
        """
        share = self.foreground.static_movie_share if label == "static" else None
        share = MOVING_SHARE if share is None else share
        moving = self.movies and (not self.stills or rng.random() < share)
        pool = self.movies if moving else self.stills
        return pool[rng.integers(len(pool))]

    def film(
        self, source: Source, path: Path, rng: Generator, object_share: float | None = None
    ) -> Tensor | None:
        """Render what a camera sees of a source: -> (T, 3, H, W) in 0..1; None if its path does not fit.

        ``object_share`` is the probability that an object of another source passes by, if it is not to be the
        foreground's.
        """
        frames = self._source_frames(source, path, rng)
        height, width = frames.shape[1:3]
        affine = place_in_source(path, height, width, rng)
        if affine is None:
            return None
        clip = render_view(frames, affine, self.size)
        if rng.random() < (self.foreground.object_share if object_share is None else object_share):
            self._add_objects(clip, path, rng)
        return clip

    def _source_frames(self, source: Source, path: Path, rng: Generator) -> NDArray[np.uint8]:
        """Return a source's frames at the path's times, mirrored at random: -> (T, H, W, 3), stills T = 1."""
        frames = source.read()
        if source.moving:
            # Forwards and backwards from a random frame, so that short clips fill long windows.
            count = len(frames)
            number = rng.integers(2 * count) + (path.times_s * RATE_HZ).astype(int)
            number %= 2 * count
            frames = frames[np.where(number < count, number, 2 * count - 1 - number)]
        else:
            frames = frames[rng.integers(len(frames))][None]
        if rng.random() < 0.5:
            frames = frames[:, :, ::-1]
        return frames[:, ::-1] if rng.random() < 0.15 else frames

    def _add_objects(self, clip: Tensor, path: Path, rng: Generator) -> None:
        """Draw pieces of other sources into ``clip``, which move by themselves."""
        pool, look = self.stills or self.movies, self.foreground
        part = path.times_s / max(float(path.times_s[-1]), 1e-6)
        for _ in range(1 if look.objects_max == 1 else rng.integers(1, look.objects_max + 1)):
            draw_object(clip, pool[rng.integers(len(pool))].read()[0], part, look, rng)
