"""The window whose heads are shown: decoded as the model sees it, and explained by every head in one run.

S units in a window, t frames in a unit, H W C pixels, T time steps of a window.
"""

import asyncio
import os
from typing import BinaryIO

import numpy as np
import torch

from tubelet.models.explain.explain import head_maps
from tubelet.models.repository.model_folder import Entry
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.ingest.local_file import LocalVideo
from tubelet.service.pipeline.planner import make_plan
from tubelet.service.report.maps.head_sheet import WindowHeads
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options
from tubelet.service.types.result import Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata, to_ns


async def explain_heads(path: str, entry: Entry, segment: Segment, config: DecodeConfig) -> WindowHeads:
    """Explain the window in the middle of ``segment`` of the video at ``path`` by each head of each layer.

    Raises:
        CannotExplain: the family has no attention that can be seen.
        TubeletError, OSError: the video cannot be decoded or read.
    """
    window, plan = await _decode(path, entry, segment, config)
    return await asyncio.to_thread(_explain, entry, window, plan)


async def _decode(path: str, entry: Entry, segment: Segment, config: DecodeConfig) -> tuple[np.ndarray, Plan]:
    """Decode the window: -> (S, t, H, W, C) uint8, and its plan."""
    spec = entry.spec
    async with DecodePool(config.model_copy(update={"workers": 1})) as pool:
        with _open_file(path) as file:
            video = LocalVideo(file.fileno(), os.fstat(file.fileno()).st_size)
            async with pool.session(video) as session:
                metadata = await session.probe(video)
                range_ns = _window_range(metadata, segment, to_ns(spec.sampling.window_s))
                plan = make_plan(metadata, spec.sampling, Options(ranges_ns=(range_ns,)))
                units = list[np.ndarray]()
                async for unit in session.decode(plan, spec.preprocessing):
                    units.append(unit.pixels.copy())
                    unit.release()
    return np.stack(units[: spec.sampling.units_per_window]), plan


def _open_file(path: str) -> BinaryIO:
    """Open a video file for reading."""
    return open(path, "rb")


def _window_range(metadata: VideoMetadata, segment: Segment, window_ns: int) -> tuple[int, int]:
    """Return the time range of the window in the middle of a segment, within the video."""
    window_ns = min(window_ns, metadata.duration_ns)
    start_ns = (segment.start_ns + segment.end_ns - window_ns) // 2
    start_ns = max(0, min(start_ns, metadata.duration_ns - window_ns))
    return start_ns, start_ns + window_ns


def _explain(entry: Entry, window: np.ndarray, plan: Plan) -> WindowHeads:
    """Load the model, and explain the window."""
    found = head_maps(entry.load(), entry.spec, torch.from_numpy(window))
    (grid,) = plan.grids
    steps = found.maps.shape[2]
    bounds_ns = np.linspace(grid.start_ns, grid.start_ns + grid.window_ns, steps + 1)
    frames = window.reshape(-1, *window.shape[2:])
    step = steps // 2
    frame = (2 * step + 1) * len(frames) // (2 * steps)
    unit, number = divmod(frame, grid.frames_per_unit)
    return WindowHeads(
        model=f"{entry.spec.name} {entry.spec.version}",
        attended=found.attended,
        maps=found.maps.numpy(),
        on_no_patch=found.on_no_patch.numpy(),
        start_s=bounds_ns[:-1] / NS_PER_S,
        picture=frames[frame],
        time_ns=grid.frame_time_ns(unit, number),
        step=step,
    )
