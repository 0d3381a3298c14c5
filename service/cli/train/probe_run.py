"""``tubelet train``: check the clips, embed them, train a probe, and write it as a model of the store."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError

from tubelet.models.checkpoints.efficientnet_lite import SOURCE as EFFICIENTNET_LITE
from tubelet.models.errors import CannotTrain, UnknownModel
from tubelet.models.families.registry import DIMS, Dims
from tubelet.models.repository.model_folder import Entry, write_folder
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.spec import Accuracy, ModelSpec, Provenance, Sampling
from tubelet.models.training.probe_fit import ProbeData, choose, estimate
from tubelet.models.training.probe_model import build_probe, probe_dims, set_head_
from tubelet.models.training.probes import fit_linear
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo
from tubelet.service.cli.train.checked_clips import Checked, check_clips, notes, progress, usable_labels
from tubelet.service.cli.train.clips import Clip, read_clips
from tubelet.service.cli.train.embeddings import Embedder
from tubelet.service.cli.train.probe_report import (
    Figures,
    Report,
    check_lines,
    count_labels,
    measure,
    model_card,
    report_json,
    report_lines,
)
from tubelet.service.cli.train.scene_clusters import scene_folds
from tubelet.service.cli.train.survey import Survey
from tubelet.service.cli.train.unit_cache import UnitCache
from tubelet.service.config.config import Config, DecodeConfig
from tubelet.service.types.model_ref import ModelRef

_FOLDS = 5
_UNITS = 16  # of a window of single frames
_CACHE_BYTES = 4 << 30
_CPU = torch.device("cpu")
_CAMERA_MOTION = "camera-motion"
_CAMERA_MOTION_KNOWS = (
    "the base is camera-motion, which knows motion in 48 x 48 pixels and no objects; "
    "tubelet models import efficientnet-lite0 brings a base that knows what is in a picture"
)


@dataclass(frozen=True, slots=True)
class Request:
    """What to train: the data, the name and version of the model, its base and its window."""

    data: Path
    name: str
    version: str
    base: ModelRef | None  # None: efficientnet-lite0 where the store has it, else camera-motion
    window_s: float | None  # None: the clips' median length, within the limits of the base
    replace: bool


def train_probe(request: Request, config: Config, *, as_json: bool) -> None:
    """Train a linear probe, write it into the store, and print what it is worth.

    Raises:
        InvalidDataset: the data cannot be read, or no model can be trained on it.
        CannotTrain: the name is taken or not allowed, the base has no spatial stage to use, or the store
            cannot be written.
        UnknownModel, BrokenModel, MissingExtra: the base cannot be used.
    """
    clips = read_clips(request.data)
    base = _find_base(request.base, config)
    candidates = probe_dims(base.dims)
    folder = config.models.store / request.name / request.version
    _check_name(request, base, clips, folder)
    checked = check_clips(clips, config.decode)
    for line in check_lines(checked.survey.left_out, checked.findings):
        notes.print(line)
    usable_labels(checked.survey.clips, checked.scenes)
    sampling = window_sampling(base, checked.survey.lengths_s, request.window_s)
    dtype = choose_dtype("fp32" if config.engine.precision == "int8" else config.engine.precision, _CPU)
    windows = _embed(checked.survey, Embedder(base, sampling, dtype, default_cache()), config.decode)
    used = [number for number, clip in enumerate(checked.survey.clips) if clip.name in windows]
    labels = usable_labels([checked.survey.clips[number] for number in used], checked.scenes[used])
    state = base.load().state_dict()
    models = {
        name: build_probe(dims, base.dims, state, base.spec.preprocessing, len(labels))
        for name, dims in candidates.items()
    }
    data, test = (
        _probe_data(checked, used, windows, models, labels, is_test=is_test) for is_test in (False, True)
    )
    with notes.status("training probes, with each part of the scenes left out in turn"):
        figures = measure(*estimate(data), data.labels, data.clips, labels)
        choice = choose(data)
        layer = fit_linear(data.vectors[choice.vectors], data.labels, len(labels), choice.decay)
    model = models[choice.vectors]
    set_head_(model, layer, choice.temperature)
    spec = _spec(request, base, labels, sampling, candidates[choice.vectors], figures)
    report = Report(
        spec=spec,
        folder=str(folder),
        base=f"{base.spec.name} {base.spec.version} (fingerprint {base.fingerprint})",
        labels=count_labels([checked.survey.clips[number].label for number in used]),
        left_out=checked.survey.left_out,
        scenes=len(set(checked.scenes[used].tolist())),
        findings=checked.findings,
        background_apart=checked.background[0],
        background_together=checked.background[1],
        vectors=choice.vectors,
        decay=choice.decay,
        temperature=choice.temperature,
        folds=len(data.folds.unique()),
        figures=figures,
        test=_test_figures(model, test, choice.vectors, choice.temperature, labels),
    )
    store_model(folder, spec, candidates[choice.vectors], model, model_card(report))
    if as_json:
        print(json.dumps(report_json(report), ensure_ascii=False))
    else:
        print("\n".join(report_lines(report)))


def _find_base(wanted: ModelRef | None, config: Config) -> Entry:
    """Find the model whose spatial stage the probe uses."""
    store = ModelStore(ZOO, config.models.store)
    if wanted is not None:
        return store.find(wanted.name, wanted.version)
    try:
        return store.find(EFFICIENTNET_LITE)
    except UnknownModel:
        notes.print(_CAMERA_MOTION_KNOWS)
        return store.find(_CAMERA_MOTION)


def _check_name(request: Request, base: Entry, clips: Sequence[Clip], folder: Path) -> None:
    """Refuse, before anything is decoded, a name that cannot be written, and labels that are no labels.

    Raises:
        CannotTrain: the name is taken, an embedded model's, or not allowed; a label is not one line; the
            store cannot be written.
        InvalidDataset: all clips have one label.
    """
    labels = tuple(sorted({clip.label for clip in clips}))
    if len(labels) < 2:
        raise InvalidDataset(f"all clips have the label {clips[0].label!r}: at least two labels are needed")
    if request.name in {spec.name for spec in ModelStore(ZOO).specs()}:
        raise CannotTrain(f"{request.name} is the name of an embedded model: choose another name")
    if folder.exists() and not request.replace:
        raise CannotTrain(
            f"{request.name} {request.version} is already in the store: choose another version, or give "
            "--replace"
        )
    parent = next(each for each in folder.parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CannotTrain(f"{parent} is no folder that can be written; see models.store")
    try:
        _spec(request, base, labels, base.spec.sampling, base.dims, None)
    except ValueError as error:
        raise CannotTrain(str(error)) from error


def window_sampling(base: Entry, lengths_s: Sequence[float], window_s: float | None) -> Sampling:
    """Return the sampling of the new model: a window is as long as the median clip, within the base's limits.

    Raises:
        CannotTrain: the wanted window is outside of the base's limits.
    """
    was = base.spec.sampling
    low, high = was.min_window_s, was.max_window_s
    if window_s is not None and not low <= window_s <= high:
        raise CannotTrain(
            f"--window must be {low:g} to {high:g} s with the base {base.spec.name}; found {window_s:g}"
        )
    window = round(window_s or min(max(median(lengths_s), low), high), 2)
    units = was.units_per_window if base.spec.family == "factorised" else _UNITS
    return Sampling(
        was.frames_per_unit,
        units,
        window,
        stride_s=window / 2,
        min_window_s=max(low, window / 2),
        max_window_s=min(high, window * 2),
        position=was.position,
    )


def _embed(survey: Survey, embedder: Embedder, config: DecodeConfig) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings (W, S, D) of the windows of each clip."""

    def leave_out(clip: LabelledVideo, error: Exception) -> None:
        left_out = {clip.name: " ".join(str(error).split())}
        survey.left_out.update(left_out)
        notes.print(*check_lines(left_out, ()))

    with progress(f"embedding with {embedder.base.spec.name}", len(survey.clips)) as advance:
        return embedder.embed(survey.clips, survey.digests, config, advance, leave_out)


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
    count = min(_FOLDS, len(set(checked.scenes[chosen].tolist())))
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
def _test_figures(
    model: VideoModel, test: ProbeData, vectors: str, temperature: float, labels: Sequence[str]
) -> Figures | None:
    """Measure the trained model on the test split; None if there is none."""
    if not len(test.labels):
        return None
    logits = model.head(test.vectors[vectors])
    return measure(logits, logits * temperature, test.labels, test.clips, labels)


def _spec(
    request: Request,
    base: Entry,
    labels: tuple[str, ...],
    sampling: Sampling,
    dims: Dims,
    figures: Figures | None,
) -> ModelSpec:
    """Return the specification of the new model.

    Raises:
        ValueError: the name, the version or a label is not allowed.
    """
    measured: tuple[Accuracy, ...] = ()
    if figures is not None:
        low, high = figures.interval
        note = f"{figures.clips} clips, 95 % interval {low:.3f} to {high:.3f}"
        accuracy = round(figures.accuracy, 4)
        measured = (Accuracy(f"{request.data.name}, scenes left out in turn", accuracy, note),)
    return ModelSpec(
        name=request.name,
        version=request.version,
        family=next(family for family, kind in DIMS.items() if isinstance(dims, kind)),
        description=f"{len(labels)} labels of {request.data.name}, a linear probe on {base.spec.name}.",
        licence=base.spec.licence,
        labels=labels,
        sampling=sampling,
        preprocessing=base.spec.preprocessing,
        accuracy=measured,
        provenance=Provenance(
            f"tubelet train, probe on {base.spec.name} {base.spec.version}",
            f"base with fingerprint {base.fingerprint}",
            f"tubelet {installed_version('tubelet')}",
        ),
    )


def store_model(folder: Path, spec: ModelSpec, dims: Dims, model: VideoModel, card: str) -> None:
    """Write a trained model's folder, completely or not at all.

    Raises:
        CannotTrain: it cannot be written.
    """
    try:
        write_folder(folder, spec, dims, model, card)
    except (OSError, SafetensorError) as error:
        raise CannotTrain(f"{folder} cannot be written: {error}; see models.store") from error


def default_cache() -> UnitCache:
    """Return the cache of embeddings of this user."""
    return UnitCache(user_cache_path("tubelet") / "embeddings", _CACHE_BYTES)
