"""The windows of the study: simulated camera moves, rendered once into files that all runs read.

N windows, T frames in a window, H W C pixels.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.json_file import write_json
from tubelet.models.spec import Sampling
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.dataset import SimulatedMoves
from tubelet.models.training.simulation.sources import Source
from tubelet.models.training.study.design import FRAMES, SIDE, Design

SEEDS = {"training": 20261201, "validation": 20261202, "test": 20261203}
"""The seed of each part."""
# One unit of all frames: a model divides the window as it needs.
_SAMPLING = Sampling(FRAMES, 1, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0)
_GROUP = 2 * len(LABELS)  # windows that are rendered together, two of each label
_DIGEST_DIGITS = 16

OnWindows = Callable[[int], object]
"""Is told how many more windows have been rendered."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows in files: ``pixels`` (N, T, H, W, C) uint8, read as they are needed, and ``labels`` (N,) int64.

    ``digest`` identifies them: a hash of both.
    """

    pixels: NDArray[np.uint8]
    labels: Tensor
    digest: str

    def __repr__(self) -> str:
        return f"Windows({self.pixels.shape}, {self.digest})"

    def units(self, numbers: NDArray[np.int64], frames_per_unit: int) -> Tensor:
        """Read some windows, cut into units: (B,) -> (B, S, t, H, W, C) uint8."""
        clips = torch.from_numpy(self.pixels[numbers])
        return rearrange(clips, "b (s t) h w c -> b s t h w c", t=frames_per_unit)


def count_windows(design: Design) -> dict[str, int]:
    """Return the number of windows of each part."""
    return {
        "training": design.training_windows,
        "validation": design.validation_windows,
        "test": design.test_windows,
    }


def is_rendered(part: str, count: int, folder: Path) -> bool:
    """Return whether at least ``count`` windows of a part are in ``folder``."""
    facts = _facts_file(part, folder)
    return facts.is_file() and json.loads(facts.read_text())["windows"] >= count


def render(part: str, count: int, sources: Sequence[Source], folder: Path, on_windows: OnWindows) -> None:
    """Render ``count`` windows of a part into ``folder``, every label as often.

    A window depends on its number alone, so more windows begin with those of fewer. The facts are written
    last: what is interrupted is rendered again.

    Raises:
        OSError: the files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moves = SimulatedMoves(
        sources, _SAMPLING, SIDE, seed=SEEDS[part], batches=-(-count // _GROUP), batch_size=2 * _GROUP
    )
    partial, digest = folder / f"{part}.partial", hashlib.sha256()
    labels = []
    with partial.open("wb") as file:
        shape = (count, FRAMES, SIDE, SIDE, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for number in range(len(moves)):
            # The other half of a batch is the same windows, mirrored.
            wanted = min(_GROUP, count - number * _GROUP)
            batch = moves[number]
            pixels = batch.units[:wanted, 0].contiguous().numpy().tobytes()
            file.write(pixels)
            digest.update(pixels)
            labels.append(batch.labels[:wanted].numpy())
            on_windows(wanted)
    partial.replace(_pixels_file(part, folder))
    every = np.concatenate(labels)
    digest.update(every.tobytes())
    facts = {
        "windows": count,
        "seed": SEEDS[part],
        "sources": len(sources),
        "digest": digest.hexdigest()[:_DIGEST_DIGITS],
        "labels": every.tolist(),
    }
    write_json(_facts_file(part, folder), facts)


def read_windows(part: str, folder: Path) -> Windows:
    """Return the windows of a part that ``render`` wrote into ``folder``."""
    facts = json.loads(_facts_file(part, folder).read_text())
    pixels = np.load(_pixels_file(part, folder), mmap_mode="r")
    return Windows(pixels, torch.tensor(facts["labels"]), facts["digest"])


def _pixels_file(part: str, folder: Path) -> Path:
    """Return the file of a part's pixels."""
    return folder / f"{part}.npy"


def _facts_file(part: str, folder: Path) -> Path:
    """Return the file of a part's labels, number, seed and digest."""
    return folder / f"{part}.json"
