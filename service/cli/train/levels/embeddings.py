"""The embeddings of all units of clips, from the cache or computed by the spatial stage of a model.

W windows of a clip, S units in a window, D width of a unit's embedding.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from tubelet.models.repository.model_folder import Entry
from tubelet.models.runtime.onednn import pack
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.runs.interruption import INTERRUPTED
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.survey import part_of
from tubelet.service.cli.train.levels.unit_cache import UnitCache
from tubelet.service.cli.training.feed import plan_part, read_samples
from tubelet.service.config.config import DecodeConfig
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import Crop, VideoMetadata, to_ns

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """One more look at a clip in training: a part ``length`` of a window, at a ``place`` from 0 to 1."""

    length: float
    place: float
    crop: Crop = "centre"
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Embedder:
    """Embeds clips with the spatial stage of ``base``, in windows of ``sampling``, computed in ``dtype``.

    With ``views``, each clip has a window for each of them instead, in their order.
    """

    base: Entry
    sampling: Sampling
    dtype: torch.dtype
    cache: UnitCache
    views: tuple[View, ...] = ()

    def embed(
        self,
        clips: Sequence[Clip],
        digests: dict[str, str],
        config: DecodeConfig,
        advance: Callable[[], None],
        on_failure: Callable[[LabelledVideo, Exception], None],
    ) -> dict[str, NDArray[np.float32]]:
        """Return the embeddings (W, S, D) of each clip, by its name; ``advance`` is called after each clip.

        ``digests`` has the hash of each video's file. A clip that cannot be decoded is missing. If the cache
        cannot be written, a warning says so, and the next run computes the embeddings again.
        """
        found: dict[str, NDArray[np.float32]] = {}
        keys = {clip.name: self._key(clip, digests[clip.video]) for clip in clips}
        for clip in clips:
            if (cached := self.cache.get(*keys[clip.name])) is not None:
                found[clip.name] = cached
                advance()
        missing = [clip for clip in clips if clip.name not in found]
        is_kept = True
        try:
            for name, windows in self._compute(missing, config, on_failure):
                is_kept = is_kept and self._keep(windows, keys[name])
                found[name] = windows
                advance()
        except KeyboardInterrupt:
            if is_kept and found:
                notes.print(
                    f"interrupted: the embeddings of {len(found)} of {len(clips)} clips are kept, and the "
                    "same command goes on from there"
                )
                raise typer.Exit(INTERRUPTED) from None
            raise
        self.cache.trim()
        return found

    def _compute(
        self,
        clips: Sequence[Clip],
        config: DecodeConfig,
        on_failure: Callable[[LabelledVideo, Exception], None],
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the name and the embeddings of each clip that can be decoded."""
        if not clips:
            return
        model = self.base.load().to(self.dtype)
        pack(model)
        plan = partial(plan_views, self.views) if self.views else plan_clip
        planner = partial(plan, self.sampling, self.base.spec.preprocessing)
        name, windows = "", []
        with torch.inference_mode():
            for sample in read_samples(clips, planner, config, on_failure):
                if sample.id != name and windows:
                    yield name, np.stack(windows)
                    windows = []
                name = sample.id
                is_mirrored = bool(self.views) and self.views[len(windows)].is_mirrored
                units = np.ascontiguousarray(np.flip(sample.units, axis=3)) if is_mirrored else sample.units
                windows.append(model.encode(torch.from_numpy(units)).float().numpy())
        if windows:
            yield name, np.stack(windows)

    def _keep(self, windows: NDArray[np.float32], key: tuple[str, ...]) -> bool:
        """Write embeddings into the cache; if that fails, log a warning and return False."""
        try:
            self.cache.put(windows, *key)
        except OSError as error:
            _log.warning(
                "embeddings are not kept, %s cannot be written: %s", self.cache.folder, error.strerror
            )
            return False
        return True

    def _key(self, clip: Clip, digest: str) -> tuple[str, ...]:
        """Return all that decides the embeddings of a clip."""
        key = self.base.fingerprint, digest, repr(clip.range_s), repr(self.sampling), str(self.dtype)
        return (*key, repr(self.views)) if self.views else key


def plan_clip(
    sampling: Sampling, preprocessing: Preprocessing, clip: Clip, metadata: VideoMetadata
) -> tuple[Plan, Preprocessing]:
    """Plan the windows of a clip."""
    return plan_part(sampling, sampling.window_s, *part_of(clip, metadata)), preprocessing


def plan_views(
    views: Sequence[View],
    sampling: Sampling,
    preprocessing: Preprocessing,
    clip: Clip,
    metadata: VideoMetadata,
) -> tuple[Plan, Preprocessing]:
    """Plan a window of a clip for each view, in their order."""
    start_ns, end_ns = part_of(clip, metadata)
    longest_ns = min(to_ns(sampling.window_s), end_ns - start_ns)
    t, s = sampling.frames_per_unit, sampling.units_per_window
    grids = []
    for view in views:
        window_ns = max(1, round(view.length * longest_ns))
        first_ns = start_ns + round(view.place * (end_ns - start_ns - window_ns))
        whole = SamplingGrid(start_ns, end_ns, window_ns, t, s, stride_units=s, one_segment=True)
        crop = view.crop if preprocessing.resize == "crop" else "centre"
        grids.append(replace(whole, view_ns=first_ns, crop=crop))
    return Plan(tuple(grids)), preprocessing
