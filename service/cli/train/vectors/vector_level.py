"""Training on a file of embeddings: a head on the model that computed them, if the store has it, or alone.

W windows, S units in a window, D width of a vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.registry import Dims, build_on_meta
from tubelet.models.families.unit_pooling import pool_units
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Sampling
from tubelet.models.training.probe_model import probe_dims
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.checked_clips import Checked, notes, usable_labels
from tubelet.service.cli.train.data.data_checks import Finding, check_labels
from tubelet.service.cli.train.data.label_names import name_labels
from tubelet.service.cli.train.data.stretches import with_stretches
from tubelet.service.cli.train.data.survey import Survey
from tubelet.service.cli.train.levels.fitted_probe import Features, FittedProbe, fit_probe
from tubelet.service.cli.train.levels.probe import probe_features, trained_probe
from tubelet.service.cli.train.new_model import Request, Trained
from tubelet.service.cli.train.prepare import Prepared, check_name, check_options, with_window
from tubelet.service.cli.train.report.probe_report import check_lines
from tubelet.service.cli.train.vectors.head_folder import check_head_folder
from tubelet.service.cli.train.vectors.vector_table import VectorTable, read_vectors
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable

_UNITS = 16  # of a window of single frames, at most
_NO_GROUPS = (
    "no clip has a group, so that each counts as a scene of its own: where clips show one place, camera or "
    "person, the figures flatter the model"
)


@dataclass(frozen=True, slots=True)
class HeadAlone:
    """A probe on vectors that no model of the store computes, and ``why``."""

    fitted: FittedProbe
    labels: tuple[str, ...]
    checked: Checked
    why: str


def train_on_vectors(
    request: Request, config: Config, head_folder: Path
) -> tuple[Prepared, Trained] | HeadAlone:
    """Train a probe on a file of embeddings; nothing is decoded. ``head_folder`` is where a head alone goes.

    Raises:
        InvalidDataset: the file cannot be read, or no model can be trained on it.
        CannotTrain: the name is taken or not allowed, an option does not go with vectors, or the store cannot
            be written.
        BrokenModel, MissingExtra: the model that computed the vectors cannot be loaded.
    """
    if request.base is not None or request.window_s is not None or request.level != "probe":
        raise CannotTrain(
            "embeddings name their model, have windows already, and are enough for the level probe alone: "
            "leave out --from, --window and --level"
        )
    check_options(request)
    table = read_vectors(request.data)
    table = replace(table, clips=name_labels(table.clips, request.labels))
    checked = _checked(table)
    for line in check_lines({}, checked.findings):
        notes.print(printable(line))
    labels = usable_labels(table.clips, checked.scenes)
    base, why = _find_base(table, config)
    if base is None:
        check_head_folder(head_folder, replace=request.replace)
        notes.print(printable(f"note: {why}: the head alone is stored, in {head_folder}"))
        clips, features = dict(enumerate(table.clips)), _clip_features(table)
        fitted = fit_probe(clips, checked.scenes, labels, features, with_curve=request.curve)
        return HeadAlone(fitted, labels, checked, why)
    check_name(request, base, table.clips, request.folder(config))
    return _train_on_base(base, table, checked, labels, with_curve=request.curve)


def _train_on_base(
    base: Entry, table: VectorTable, checked: Checked, labels: tuple[str, ...], *, with_curve: bool
) -> tuple[Prepared, Trained]:
    """Train a probe that is a head of ``base``."""
    assert table.maker is not None
    if table.maker.level == "unit":
        sampling = _unit_sampling(base, table)
        windows = {
            number: torch.from_numpy(_windows(table.vectors[clip.name], sampling.units_per_window))
            for number, clip in enumerate(table.clips)
        }
        _check_width(base, "mean", windows[0].shape[2])
        features = probe_features(base, windows)
    else:
        sampling, tensors = _window_sampling(base, table), _tensors(table)
        name = _vectors_of(base.dims)
        assert name is not None  # _find_base refuses others
        _check_width(base, name, tensors[0].shape[1])
        features = Features({name: tensors})
    clips = dict(enumerate(table.clips))
    fitted = fit_probe(clips, checked.scenes, labels, features, with_curve=with_curve)
    return Prepared(base, checked, sampling), trained_probe(base, fitted, labels, tuple(clips))


def _check_width(base: Entry, vectors: str, found: int) -> None:
    """Refuse vectors of another width than those that a probe on ``base`` takes.

    Raises:
        InvalidDataset: the widths differ.
    """
    model = build_on_meta(probe_dims(base.dims)[vectors], base.spec.preprocessing, num_classes=1)
    width = model.get_submodule("head").get_parameter("weight").shape[1]
    if found != width:
        raise InvalidDataset(f"vectors have {found} numbers, those of {base.spec.name} {width}")


def _vectors_of(dims: Dims) -> str | None:
    """Return the name of a model's window vectors among those that a linear probe may be on."""
    pool = getattr(dims, "pool", "mean")  # image models have the mean
    candidates = probe_dims(dims).items()
    return next((name for name, sizes in candidates if getattr(sizes, "pool", "mean") == pool), None)


def _checked(table: VectorTable) -> Checked:
    """Return the clips with their scenes and what stands out; there are no pictures."""
    numbers: dict[tuple[bool, str], int] = {}
    scenes = np.array(
        [
            numbers.setdefault((bool(clip.group), clip.group or clip.name), len(numbers))
            for clip in table.clips
        ]
    )
    scenes, stretched = with_stretches(table.clips, scenes)
    findings = [*stretched, *check_labels(table.clips, scenes.tolist())]
    if not any(clip.group for clip in table.clips):
        findings.insert(0, Finding(_NO_GROUPS))
    lengths = tuple((table.step_s or 0.0) * len(table.vectors[clip.name]) for clip in table.clips)
    none = np.zeros((0, 1, 1, 1, 3), np.uint8)
    return Checked(Survey(table.clips, none, lengths, {"": ""}, {}, {}), scenes, tuple(findings), None)


def _find_base(table: VectorTable, config: Config) -> tuple[Entry | None, str]:
    """Return the model of the store that computed the vectors; or None, and why none can be served."""
    if (maker := table.maker) is None:
        return None, "the file does not name one model that computed its vectors"
    store = ModelStore(ZOO, config.models.store)
    entries = [store.find(spec.name, spec.version) for spec in store.specs()]
    base = next((entry for entry in entries if entry.fingerprint == maker.fingerprint), None)
    named = f"{maker.model} {maker.version}, fingerprint {maker.fingerprint}"
    if base is None:
        return None, f"the store has no model with the fingerprint of the vectors ({named})"
    if table.are_normalised:
        return None, f"the vectors have the length 1, but a server computes those of {named} as they are"
    if maker.level == "unit" and table.has_views:
        return None, "units of several views do not follow each other in time"
    try:
        if maker.level != "unit" and _vectors_of(base.dims) is None:
            return None, f"{named} attends to units: give vectors of the level unit"
    except CannotTrain as error:
        return None, str(error)
    return base, ""


def _unit_sampling(base: Entry, table: VectorTable) -> Sampling:
    """Return the sampling of windows of units: as many as the median clip has, within the base's limits.

    Raises:
        InvalidDataset: a clip has too few units for a window of the base.
    """
    was = base.spec.sampling
    unit_s = table.step_s or was.window_s / was.units_per_window
    counts = [len(each) for each in table.vectors.values()]
    if isinstance(base.dims, FactorisedDims):
        units = was.units_per_window
        if short := [name for name, each in table.vectors.items() if len(each) < units]:
            found = len(table.vectors[short[0]])
            raise InvalidDataset(f"{short[0]} has {found} units; a window of {base.spec.name} has {units}")
    else:
        fewest, most = math.ceil(was.min_window_s / unit_s), math.floor(was.max_window_s / unit_s)
        units = max(1, fewest, min(int(median(counts)), most, _UNITS))
    return with_window(was, units, units * unit_s)


def _window_sampling(base: Entry, table: VectorTable) -> Sampling:
    """Return the sampling of the base, with windows as long as those of the vectors."""
    was = base.spec.sampling
    is_window = table.maker is not None and table.maker.level == "window"
    return with_window(
        was, was.units_per_window, table.step_s if is_window and table.step_s else was.window_s
    )


def _windows(vectors: NDArray[np.float32], units: int) -> NDArray[np.float32]:
    """Cut the units of a clip into windows that overlap by half: (n, D) -> (W, S, D); fewer units are one."""
    starts = range(0, max(1, len(vectors) - units + 1), max(1, units // 2))
    return np.stack([vectors[start : start + units] for start in starts])


def _tensors(table: VectorTable) -> Mapping[int, Tensor]:
    """Return the vectors of each clip by its number, (n, D)."""
    return {number: torch.from_numpy(table.vectors[clip.name]) for number, clip in enumerate(table.clips)}


def _clip_features(table: VectorTable) -> Features:
    """Return one vector a clip: the mean of its vectors, and with the mean change, if it has several.

    All of its vectors are what an attentive probe sees.
    """
    units = {number: each[None] for number, each in _tensors(table).items()}
    means = {number: pool_units(each, "mean") for number, each in units.items()}
    if all(each.shape[1] == 1 for each in units.values()):
        return Features({"the vector": means})
    both = {number: pool_units(each, "mean_and_change") for number, each in units.items()}
    return Features({"mean": means, "mean and change": both}, units)
