"""The level ``probe``: embed all units once, choose a probe on them, and put it into a model.

W windows, S units in a window, D width of a unit's embedding, E width of a window's vector.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from torch import Tensor

from tubelet.models.repository.model_folder import Entry
from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.training.probe_model import attentive_dims, build_probe, probe_dims, set_probe_
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.train.base import Untrained
from tubelet.service.cli.train.data.checked_clips import notes, progress
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.levels.embeddings import Embedder, View
from tubelet.service.cli.train.levels.fitted_probe import Features, FittedProbe, fit_probe
from tubelet.service.cli.train.levels.unit_cache import UnitCache
from tubelet.service.cli.train.new_model import Trained
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.train.report.probe_report import check_lines
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable

_CACHE_BYTES = 4 << 30
_CPU = torch.device("cpu")


def train_probe(prepared: Prepared, config: Config) -> Trained:
    """Train a probe, linear or attentive, on the frozen spatial stage of the base.

    Raises:
        InvalidDataset: too few clips can be decoded.
        CannotTrain, BrokenModel, MissingExtra: the base cannot be used.
    """
    base, checked = prepared.base, prepared.checked
    assert not isinstance(base, Untrained)
    found = embed_clips(prepared, config, checked.survey.clips)
    clips = {number: clip for number, clip in enumerate(checked.survey.clips) if clip.name in found}
    labels = prepared.label_clips(tuple(clips))
    windows = {number: torch.from_numpy(found[clip.name]) for number, clip in clips.items()}
    features = probe_features(base, windows)
    fitted = fit_probe(clips, checked.scenes, labels, features, with_curve=prepared.with_curve)
    return trained_probe(base, fitted, labels, tuple(clips))


@torch.inference_mode()
def probe_features(base: Entry, windows: Mapping[int, Tensor]) -> Features:
    """Return what probes on ``base`` may be trained on, from the windows (W, S, D) of clips by number.

    Raises:
        CannotTrain, BrokenModel, MissingExtra: the base cannot be used.
    """
    state, preprocessing = base.load().state_dict(), base.spec.preprocessing
    vectors = {}
    for name, dims in probe_dims(base.dims).items():
        model = build_probe(dims, base.dims, state, preprocessing, num_classes=1)
        vectors[name] = {number: model.pool(each) for number, each in windows.items()}
    has_several = any(each.shape[1] > 1 for each in windows.values())
    return Features(vectors, windows if has_several else None)


def trained_probe(
    base: Entry, fitted: FittedProbe, labels: tuple[str, ...], used: tuple[int, ...]
) -> Trained:
    """Return the model of a probe on ``base``, with what is known of it."""
    candidates = probe_dims(base.dims) if fitted.probe.pooling is None else attentive_dims(base.dims)
    dims, state = candidates[fitted.probe.vectors], base.load().state_dict()
    model = build_probe(dims, base.dims, state, base.spec.preprocessing, len(labels))
    set_probe_(model, fitted.probe, fitted.temperature)
    return Trained(
        model=model,
        dims=dims,
        labels=labels,
        used=used,
        temperature=fitted.temperature,
        recipe=fitted.recipe,
        held_out=fitted.held_out,
        test=fitted.test,
    )


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
