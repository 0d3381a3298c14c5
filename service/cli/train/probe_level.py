"""The level ``probe``: embed all units once, choose a linear probe on them, and put it into a model.

W windows, S units in a window, D width of a unit's embedding, E width of a window's vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path

from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.training.probe_fit import ProbeData, choose, estimate
from tubelet.models.training.probe_model import build_probe, probe_dims, set_head_
from tubelet.models.training.probes import Choice, fit_linear, in_other_folds
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.train.checked_clips import Checked, notes, progress
from tubelet.service.cli.train.clips import Clip
from tubelet.service.cli.train.division import FOLDS
from tubelet.service.cli.train.embeddings import Embedder, View
from tubelet.service.cli.train.new_model import Answers, Recipe, Trained
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.train.probe_report import check_lines
from tubelet.service.cli.train.scene_clusters import scene_folds
from tubelet.service.cli.train.temperature import useful_temperature
from tubelet.service.cli.train.unit_cache import UnitCache
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
    windows = embed_clips(prepared, config, checked.survey.clips)
    used = [number for number, clip in enumerate(checked.survey.clips) if clip.name in windows]
    labels = prepared.label_clips(used)
    state, candidates = base.load().state_dict(), probe_dims(base.dims)
    models = {
        name: build_probe(dims, base.dims, state, base.spec.preprocessing, len(labels))
        for name, dims in candidates.items()
    }
    data, test = (
        _probe_data(checked, used, windows, models, labels, is_test=is_test) for is_test in (False, True)
    )
    with notes.status("training probes, with each part of the scenes left out in turn"):
        held_out = _held_out(data)
        choice = choose(data)
        layer = fit_linear(data.vectors[choice.vectors], data.labels, len(labels), choice.decay)
    temperature, held_out, warnings = useful_temperature(choice.temperature, held_out)
    model = models[choice.vectors]
    set_head_(model, layer, temperature)
    return Trained(
        model=model,
        dims=candidates[choice.vectors],
        labels=labels,
        used=tuple(used),
        temperature=temperature,
        recipe=replace(_recipe(choice, len(data.folds.unique())), warnings=warnings),
        held_out=held_out,
        test=_test_answers(model, test, choice.vectors, temperature),
    )


def _recipe(choice: Choice, folds: int) -> Recipe:
    """Describe what was chosen."""
    return Recipe(
        level="probe",
        head=f"a linear probe on {choice.vectors}, weight decay {choice.decay:g}",
        measured_on=f"scenes that it does not know ({folds} parts in turn)",
        details={"vectors": choice.vectors, "decay": choice.decay, "folds": folds},
    )


def _held_out(data: ProbeData) -> Answers:
    """Return the answers of probes for the windows whose label they could know: other folds have it, too."""
    known = in_other_folds(data.labels, data.folds)
    calibrated, fitted = estimate(data)
    return Answers(calibrated[known], fitted[known], data.labels[known], data.clips[known])


def embed_clips(
    prepared: Prepared, config: Config, clips: Sequence[Clip], views: tuple[View, ...] = ()
) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings (W, S, D) of the windows, or the ``views``, of each clip that can be decoded."""
    survey = prepared.checked.survey
    dtype = training_dtype(config)
    embedder = Embedder(prepared.base, prepared.sampling, dtype, default_cache(), views)

    def leave_out(clip: LabelledVideo, error: Exception) -> None:
        left_out = {clip.name: " ".join(str(error).split())}
        survey.left_out.update(left_out)
        notes.print(*map(printable, check_lines(left_out, ())))

    with progress(f"embedding with {embedder.base.spec.name}", len(clips)) as advance:
        return embedder.embed(clips, survey.digests, config.decode, advance, leave_out)


def training_dtype(config: Config) -> torch.dtype:
    """Return what a model is computed in: int8 cannot be trained in."""
    return choose_dtype("fp32" if config.engine.precision == "int8" else config.engine.precision, _CPU)


def _probe_data(
    checked: Checked,
    used: Sequence[int],
    windows: Mapping[str, NDArray[np.float32]],
    models: Mapping[str, VideoModel],
    labels: Sequence[str],
    *,
    is_test: bool,
) -> ProbeData:
    """Return the vectors of the windows of the training clips, or of those of the test split."""
    clips = checked.survey.clips
    chosen = [number for number in used if clips[number].is_test == is_test]
    count = min(FOLDS, len(set(checked.scenes[chosen].tolist())))
    folds = scene_folds(checked.scenes[chosen].tolist(), [clips[each].label for each in chosen], count)
    repeats = torch.tensor([len(windows[clips[number].name]) for number in chosen], dtype=torch.int64)

    def of_windows(values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(repeats)

    with torch.inference_mode():
        units = [torch.from_numpy(windows[clips[number].name]) for number in chosen]
        vectors = {
            name: torch.cat([model.pool(each) for each in units]) if units else torch.zeros(0, 1)
            for name, model in models.items()
        }
    return ProbeData(
        {name: each.clone() for name, each in vectors.items()},
        of_windows([labels.index(clips[number].label) for number in chosen]),
        of_windows(chosen),
        of_windows(folds.tolist()),
        len(labels),
    )


@torch.inference_mode()
def _test_answers(model: VideoModel, test: ProbeData, vectors: str, temperature: float) -> Answers | None:
    """Return the answers of the trained model for the test split; None if there is none."""
    if not len(test.labels):
        return None
    logits = model.head(test.vectors[vectors])
    return Answers(logits, logits * temperature, test.labels, test.clips)


def default_cache() -> UnitCache:
    """Return the cache of embeddings of this user."""
    return UnitCache(user_cache_path("tubelet") / "embeddings", _CACHE_BYTES)
