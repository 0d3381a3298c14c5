"""Training on a file of embeddings: a head on the model that computed them, if the store has it, or alone.

W windows, S units in a window, D width of a vector.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Sampling
from tubelet.models.training.probe_model import build_probe, probe_dims, set_head_
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.checked_clips import Checked, notes, usable_labels
from tubelet.service.cli.train.data.data_checks import Finding, check_labels
from tubelet.service.cli.train.data.label_names import name_labels
from tubelet.service.cli.train.data.survey import Survey
from tubelet.service.cli.train.levels.fitted_probe import FittedProbe, Vectors, fit_probe
from tubelet.service.cli.train.levels.probe import pooled
from tubelet.service.cli.train.new_model import Request, Trained
from tubelet.service.cli.train.prepare import Prepared, check_curve, check_name
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

    probe: FittedProbe
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
    table = read_vectors(request.data)
    table = replace(table, clips=name_labels(table.clips, request.labels))
    check_curve(request)
    checked = _checked(table)
    for line in check_lines({}, checked.findings):
        notes.print(printable(line))
    labels = usable_labels(table.clips, checked.scenes)
    base, why = _find_base(table, config)
    if base is None:
        check_head_folder(head_folder, replace=request.replace)
        notes.print(printable(f"note: {why}: the head alone is stored, in {head_folder}"))
        vectors = _clip_vectors(table)
        return HeadAlone(
            fit_probe(
                dict(enumerate(table.clips)), checked.scenes, labels, vectors, with_curve=request.curve
            ),
            labels,
            checked,
            why,
        )
    check_name(request, base, table.clips, request.folder(config))
    return _train_on_base(base, table, checked, labels, with_curve=request.curve)


def _train_on_base(
    base: Entry, table: VectorTable, checked: Checked, labels: tuple[str, ...], *, with_curve: bool
) -> tuple[Prepared, Trained]:
    """Train a probe that is a head of ``base``."""
    assert table.maker is not None
    state, candidates = base.load().state_dict(), probe_dims(base.dims)
    models = {
        name: build_probe(dims, base.dims, state, base.spec.preprocessing, len(labels))
        for name, dims in candidates.items()
    }
    if table.maker.level == "unit":
        sampling = _unit_sampling(base, table)
        windows = [_windows(table.vectors[clip.name], sampling.units_per_window) for clip in table.clips]
        vectors: Vectors = {
            name: {number: pooled(model, each) for number, each in enumerate(windows)}
            for name, model in models.items()
        }
    else:
        sampling = _window_sampling(base, table)
        pool = getattr(base.dims, "pool", "mean")  # image models have the mean
        name = next(name for name, dims in candidates.items() if getattr(dims, "pool", "mean") == pool)
        vectors = {name: _tensors(table)}
    for name, each in vectors.items():
        width = models[name].get_submodule("head").get_parameter("weight").shape[1]
        if each[0].shape[1] != width:
            raise InvalidDataset(
                f"vectors have {each[0].shape[1]} numbers, those of {base.spec.name} {width}"
            )
    clips = dict(enumerate(table.clips))
    probe = fit_probe(clips, checked.scenes, labels, vectors, with_curve=with_curve)
    model = models[probe.vectors]
    set_head_(model, probe.layer, probe.temperature)
    trained = Trained(
        model=model,
        dims=candidates[probe.vectors],
        labels=labels,
        used=tuple(range(len(table.clips))),
        temperature=probe.temperature,
        recipe=probe.recipe,
        held_out=probe.held_out,
        test=probe.test,
    )
    return Prepared(base, checked, sampling), trained


def _checked(table: VectorTable) -> Checked:
    """Return the clips with their scenes and what stands out; there are no pictures."""
    numbers: dict[tuple[bool, str], int] = {}
    scenes = np.array(
        [
            numbers.setdefault((bool(clip.group), clip.group or clip.name), len(numbers))
            for clip in table.clips
        ]
    )
    findings = check_labels(table.clips, scenes.tolist())
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
        probe_dims(base.dims)
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
    return _sampling(was, units, units * unit_s)


def _window_sampling(base: Entry, table: VectorTable) -> Sampling:
    """Return the sampling of the base, with windows as long as those of the vectors."""
    was = base.spec.sampling
    is_window = table.maker is not None and table.maker.level == "window"
    return _sampling(was, was.units_per_window, table.step_s if is_window and table.step_s else was.window_s)


def _sampling(was: Sampling, units: int, window_s: float) -> Sampling:
    """Return a sampling with other windows; they may be half as long or twice as long, within limits."""
    window = min(max(round(window_s, 3), was.min_window_s), was.max_window_s)
    return Sampling(
        was.frames_per_unit,
        units,
        window,
        stride_s=window / 2,
        min_window_s=max(was.min_window_s, window / 2),
        max_window_s=min(was.max_window_s, window * 2),
        position=was.position,
    )


def _windows(vectors: NDArray[np.float32], units: int) -> NDArray[np.float32]:
    """Cut the units of a clip into windows that overlap by half: (n, D) -> (W, S, D); fewer units are one."""
    starts = range(0, max(1, len(vectors) - units + 1), max(1, units // 2))
    return np.stack([vectors[start : start + units] for start in starts])


def _tensors(table: VectorTable) -> Mapping[int, Tensor]:
    """Return the vectors of each clip by its number, (n, D)."""
    return {number: torch.from_numpy(table.vectors[clip.name]) for number, clip in enumerate(table.clips)}


def _clip_vectors(table: VectorTable) -> Vectors:
    """Return one vector a clip: the mean of its vectors, and with the mean change, if it has several."""
    found: Sequence[Tensor] = list(_tensors(table).values())
    means = {number: each.mean(dim=0, keepdim=True) for number, each in enumerate(found)}
    if all(len(each) == 1 for each in found):
        return {"the vector": means}
    changes = {
        number: each.diff(dim=0).abs().sum(dim=0, keepdim=True) / max(1, len(each) - 1)
        for number, each in enumerate(found)
    }
    both = {number: torch.cat((mean, changes[number]), dim=1) for number, mean in means.items()}
    return {"mean": means, "mean and change": both}
