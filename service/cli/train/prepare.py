"""The first part of ``tubelet train``: read the data, find the base, check names and clips, plan windows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tubelet.models.checkpoints.efficientnet_lite import SOURCE as EFFICIENTNET_LITE
from tubelet.models.costs import PhaseCosts
from tubelet.models.errors import CannotTrain, UnknownModel
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.registry import Dims
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Sampling
from tubelet.models.training.probe_model import probe_dims
from tubelet.models.training.processes import rank
from tubelet.models.training.start import temporal_dims
from tubelet.service.cli.evaluation.page import save_page
from tubelet.service.cli.runs.output_paths import check_paths
from tubelet.service.cli.train.base import NONE, Base, untrained
from tubelet.service.cli.train.data.checked_clips import (
    Checked,
    check_clips,
    labels_to_train,
    notes,
    usable_labels,
)
from tubelet.service.cli.train.data.clip_lists import KNOWN_COLUMNS, unread_columns
from tubelet.service.cli.train.data.clips import Clip, read_clips
from tubelet.service.cli.train.data.label_names import name_labels
from tubelet.service.cli.train.disk_space import check_checkpoint_space, check_model_space
from tubelet.service.cli.train.level_choice import choose_level
from tubelet.service.cli.train.levels.run_folder import check_folder, check_started, default_folder
from tubelet.service.cli.train.new_model import Level, Request, new_spec
from tubelet.service.cli.train.report.page import PAGE, checks_page
from tubelet.service.cli.train.report.probe_report import check_lines
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable

_UNITS = 16  # of a window of single frames
_MAX_NAMED = 12  # columns in a note
_CAMERA_MOTION = "camera-motion"
_CAMERA_MOTION_KNOWS = (
    "the base is camera-motion, which knows motion in 48 x 48 pixels and no objects; "
    "tubelet models import efficientnet-lite0 brings a base that knows what is in a picture"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a level trains on: the base, the checked clips with their scenes, and the sampling of windows.

    ``costs`` get what its phases cost.
    """

    base: Base
    checked: Checked
    sampling: Sampling
    with_curve: bool = False  # whether a probe is measured on shares of the clips, too
    costs: PhaseCosts = field(default_factory=PhaseCosts, repr=False)

    def label_clips(self, used: Sequence[int]) -> tuple[str, ...]:
        """Return the labels to train of the clips with the numbers ``used``, sorted.

        Raises:
            InvalidDataset: no model can be trained on these clips.
        """
        clips = self.checked.survey.clips
        return usable_labels([clips[number] for number in used], self.checked.scenes[list(used)])


def prepare(request: Request, config: Config, costs: PhaseCosts) -> tuple[Request, Prepared]:
    """Choose the level, read and check the data before anything is trained, and say what stands out.

    The request is returned with its level. Training adds to ``costs``.

    Raises:
        InvalidDataset: the data cannot be read, or no model can be trained on it.
        CannotTrain: the name is taken or not allowed, the base has no spatial stage to use, the window is
            outside of its limits, the store cannot be written, the folder has files of something else, or
            there is no training to resume.
        OSError: the page cannot be written.
        UnknownModel: the store does not have the base.
    """
    if request.out is not None:
        check_paths([request.out / PAGE])
    clips = read_data(request)
    base = find_base(request, config)
    request = choose_level(request, base)
    check_options(request)
    if request.out is not None and request.last_level != "probe":
        check_folder(request.out)
    if request.resume and rank() == 0:
        check_started(request.out or default_folder(request, request.folder(config)))
    check_base(request.level, base)
    check_name(request, base, clips, request.folder(config))
    check_window(base, request.window_s)
    check_model_space(request.folder(config), base)
    if request.last_level == "full" and not request.resume:
        check_checkpoint_space(request.out or default_folder(request, request.folder(config)), base)
    note_base(request, base)
    checked = check_data(clips, config)
    if request.out is not None and rank() == 0:
        save_page(request.out / PAGE, checks_page(f"{request.name} {request.version}", request.data, checked))
    usable_labels(checked.survey.clips, checked.scenes)
    sampling = window_sampling(base, checked.survey.lengths_s, request.window_s)
    return request, Prepared(base, checked, sampling, request.curve, costs)


def read_data(request: Request) -> tuple[Clip, ...]:
    """Read the clips of a request, with the names of their labels; columns without meaning are named.

    Raises:
        InvalidDataset: the data cannot be read.
    """
    clips = name_labels(read_clips(request.data), request.labels)
    if unread := unread_columns(request.data):
        named = ", ".join(unread[:_MAX_NAMED]) + (", ..." if len(unread) > _MAX_NAMED else "")
        notes.print(printable(f"{request.data}: nothing is read from the columns {named}; {KNOWN_COLUMNS}"))
    return clips


def check_options(request: Request) -> None:
    """Refuse options that do not go with the level.

    Raises:
        CannotTrain: it is so.
    """
    if request.last_level == "probe" and (request.resume or request.epochs or request.minutes):
        raise CannotTrain("--level probe has no epochs: leave out --resume, --epochs and --minutes")
    if request.curve and request.last_level != "probe":
        raise CannotTrain(
            f"--curve measures probes on shares of the clips; found the level {request.last_level}: give "
            "--level probe, without --epochs and --minutes"
        )


def check_data(clips: Sequence[Clip], config: Config) -> Checked:
    """Check the clips, and say what stands out.

    Raises:
        InvalidDataset: no clip can be decoded.
    """
    checked = check_clips(clips, config.decode)
    for line in check_lines(checked.survey.left_out, checked.findings):
        notes.print(printable(line))
    return checked


def window_sampling(base: Base, lengths_s: Sequence[float], window_s: float | None) -> Sampling:
    """Return the sampling of the new model: a window is as long as the median clip, within the base's limits.

    Raises:
        CannotTrain: as ``check_window``.
    """
    check_window(base, window_s)
    was = base.spec.sampling
    units = _UNITS if _is_image_model(base.dims) else was.units_per_window
    return with_window(was, units, window_s or median(lengths_s))


def with_window(was: Sampling, units: int, window_s: float) -> Sampling:
    """Return a sampling with other windows; they may be half as long or twice as long, within limits."""
    low, high = was.min_window_s, was.max_window_s
    window = min(max(round(window_s, 3), low), high)
    return Sampling(
        was.frames_per_unit,
        units,
        window,
        stride_s=window / 2,
        min_window_s=max(low, window / 2),
        max_window_s=min(high, window * 2),
        position=was.position,
    )


def check_window(base: Base, window_s: float | None) -> None:
    """Refuse a length of windows, seconds, that the base does not take.

    Raises:
        CannotTrain: it is outside of the base's limits.
    """
    low, high = base.spec.sampling.min_window_s, base.spec.sampling.max_window_s
    if window_s is not None and not low <= window_s <= high:
        raise CannotTrain(
            f"--window must be {low:g} to {high:g} s with the base {base.spec.name}; found {window_s:g}"
        )


def note_base(request: Request, base: Base) -> None:
    """Say what the base knows if it was chosen for want of a better one."""
    if request.base is None and base.spec.name == _CAMERA_MOTION:
        notes.print(_CAMERA_MOTION_KNOWS)


def check_base(level: Level, base: Base) -> None:
    """Refuse a base that a level cannot train.

    Raises:
        CannotTrain: its family lacks what the level needs.
    """
    match level:
        case "probe":
            probe_dims(base.dims)
        case "temporal":
            temporal_dims(base.dims, base.spec.sampling.units_per_window)
        case "full":
            pass


def _is_image_model(dims: Dims) -> bool:
    """Return whether a model embeds single frames, of which a window may have any number."""
    match dims:
        case ViTDims() | FramewiseDims(temporal=None):
            return True
        case TorchvisionDims():
            return dims.frames == 1
    return False


def find_base(request: Request, config: Config) -> Base:
    """Find the model to start from.

    Raises:
        CannotTrain: random weights are wanted, but no family, or not for all of the model, or the reverse.
        UnknownModel: the store does not have the base.
    """
    wanted = request.base
    if wanted is not None and wanted.name == NONE:
        if not request.family or request.level != "full":
            raise CannotTrain(
                "--from none trains all of a model from random weights: give --family, --level full"
            )
        return untrained(request.family, request.variant)
    if request.family or request.variant:
        raise CannotTrain("--family and --variant are those of random weights: give --from none, too")
    store = ModelStore(ZOO, config.models.store)
    if wanted is not None:
        return store.find(wanted.name, wanted.version)
    try:
        return store.find(EFFICIENTNET_LITE)
    except UnknownModel:
        return store.find(_CAMERA_MOTION)


def check_name(request: Request, base: Base, clips: Sequence[Clip], folder: Path) -> None:
    """Refuse, before anything is decoded, a name that cannot be written, and labels that are no labels.

    Raises:
        CannotTrain: the name is taken, an embedded model's, or not allowed; a label is not one line; the
            store cannot be written.
        InvalidDataset: as ``labels_to_train``.
    """
    labels = tuple(labels_to_train(clips))
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
        new_spec(request, base, labels, base.spec.sampling, base.dims)
    except ValueError as error:
        raise CannotTrain(str(error)) from error
