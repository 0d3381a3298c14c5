"""The level ``probe``: embed all units once, choose a linear probe on them, and put it into a model.

W windows, S units in a window, D width of a unit's embedding, E width of a window's vector.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from torch import Tensor

from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.training.probe_model import build_probe, probe_dims, set_head_
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.train.base import Untrained
from tubelet.service.cli.train.data.checked_clips import notes, progress
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.levels.embeddings import Embedder, View
from tubelet.service.cli.train.levels.fitted_probe import fit_probe
from tubelet.service.cli.train.levels.unit_cache import UnitCache
from tubelet.service.cli.train.new_model import Trained
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.train.report.probe_report import check_lines
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable

_CACHE_BYTES = 4 << 30
_CPU = torch.device("cpu")


def train_probe(prepared: Prepared, config: Config) -> Trained:
    """Train a linear probe on the frozen spatial stage of the base.

    Raises:
        InvalidDataset: too few clips can be decoded.
        CannotTrain, BrokenModel, MissingExtra: the base cannot be used.
    """
    base, checked = prepared.base, prepared.checked
    assert not isinstance(base, Untrained)
    windows = embed_clips(prepared, config, checked.survey.clips)
    used = [number for number, clip in enumerate(checked.survey.clips) if clip.name in windows]
    labels = prepared.label_clips(used)
    state, candidates = base.load().state_dict(), probe_dims(base.dims)
    models = {
        name: build_probe(dims, base.dims, state, base.spec.preprocessing, len(labels))
        for name, dims in candidates.items()
    }
    clips = {number: checked.survey.clips[number] for number in used}
    vectors = {
        name: {number: pooled(model, windows[clip.name]) for number, clip in clips.items()}
        for name, model in models.items()
    }
    probe = fit_probe(clips, checked.scenes, labels, vectors, with_curve=prepared.with_curve)
    model = models[probe.vectors]
    set_head_(model, probe.layer, probe.temperature)
    return Trained(
        model=model,
        dims=candidates[probe.vectors],
        labels=labels,
        used=tuple(used),
        temperature=probe.temperature,
        recipe=probe.recipe,
        held_out=probe.held_out,
        test=probe.test,
    )


@torch.inference_mode()
def pooled(model: VideoModel, windows: NDArray[np.float32]) -> Tensor:
    """Return the vectors of windows: (W, S, D) -> (W, E)."""
    return model.pool(torch.from_numpy(windows))


def embed_clips(
    prepared: Prepared, config: Config, clips: Sequence[Clip], views: tuple[View, ...] = ()
) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings (W, S, D) of the windows, or the ``views``, of each clip that can be decoded."""
    survey = prepared.checked.survey
    dtype = training_dtype(config)
    assert not isinstance(prepared.base, Untrained)  # only the level full starts from random weights
    embedder = Embedder(prepared.base, prepared.sampling, dtype, default_cache(), views)

    def leave_out(clip: LabelledVideo, error: Exception) -> None:
        left_out = {clip.name: " ".join(str(error).split())}
        survey.left_out.update(left_out)
        notes.print(*map(printable, check_lines(left_out, ())))

    shown = progress(f"embedding with {embedder.base.spec.name}", len(clips))
    with prepared.costs.measure("embedding"), shown as advance:
        return embedder.embed(clips, survey.digests, config.decode, advance, leave_out)


def training_dtype(config: Config) -> torch.dtype:
    """Return what a model is computed in: int8 cannot be trained in."""
    return choose_dtype("fp32" if config.engine.precision == "int8" else config.engine.precision, _CPU)


def default_cache() -> UnitCache:
    """Return the cache of embeddings of this user."""
    return UnitCache(user_cache_path("tubelet") / "embeddings", _CACHE_BYTES)
