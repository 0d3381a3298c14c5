"""Which level is trained where the user names none, and which of two models is kept."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.errors import CannotTrain
from tubelet.models.training.loss_comparison import compare_losses
from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.models.training.probe_model import probe_dims
from tubelet.models.training.probes import window_errors, window_weights
from tubelet.models.training.start import temporal_dims
from tubelet.service.cli.train.base import Base, Untrained
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.new_model import Answers, Request, Trained

_QUICK = (
    "level probe, since no time was given: it takes seconds; with --minutes M, temporal is trained, too, and "
    "the better one kept"
)
_BOTH = "levels probe and temporal: the one that is better on clips of unknown scenes is kept"
_RANDOM = "level full: random weights know nothing that could stay as it is"


def choose_level(request: Request, base: Base) -> Request:
    """Return the request with the level to train on ``base``, and why, if the user has named none.

    It is the cheapest one that the base allows. Where that is ``probe``, and time or epochs are given,
    ``temporal`` is trained after it.
    """
    if not request.chooses_level:
        return request
    chosen = _with_level(request, base)
    if chosen.last_level != "probe":
        notes.print(chosen.reason)
    return chosen


def _with_level(request: Request, base: Base) -> Request:
    """Return the request with the level to train on ``base``."""
    if isinstance(base, Untrained):
        return replace(request, level="full", reason=_RANDOM)
    spec = base.spec
    if _is_allowed(lambda: probe_dims(base.dims)):
        if request.epochs or request.minutes:
            return replace(request, level="probe", rival="temporal", reason=_BOTH)
        return replace(request, level="probe", reason=_QUICK)
    if _is_allowed(lambda: temporal_dims(base.dims, spec.sampling.units_per_window)):
        why = f"level temporal: {spec.name} has a temporal transformer, so that no probe can be on its units"
        return replace(request, level="temporal", reason=why)
    why = (
        f"level full: the others need an image model, or one of the family factorised or framewise; "
        f"{spec.name} is of the family {spec.family}"
    )
    return replace(request, level="full", reason=why)


def _is_allowed(find_dims: Callable[[], object]) -> bool:
    """Return whether a level has sizes for a base."""
    try:
        find_dims()
    except CannotTrain:
        return False
    return True


def keep_better(probe: Trained, rival: Trained, scenes: NDArray[np.int64]) -> Trained:
    """Return the probe, or its rival where that is better by more than the standard error over ``scenes``.

    Compared are the losses of the clips that chose the rival's epoch, which the probes that answered for them
    did not know. The scene of each clip is by its number.
    """
    assert rival.validated is not None
    common = {*rival.validation} & {*probe.held_out.clips.tolist()}
    clips = torch.tensor(sorted(common), dtype=torch.int64)
    losses, others = (_clip_losses(answers, clips) for answers in (probe.held_out, rival.validated))
    found = compare_losses(losses, others, torch.from_numpy(scenes)[clips])
    taken, level = (rival if found.is_gain else probe), rival.recipe.level
    compared = found.json("probe", level)
    details = {**taken.recipe.details, "levels_compared": compared}
    reason = found.sentence("the level probe", f"the level {level}", f"on {len(clips)} validation clips")
    return explained(replace(taken, recipe=replace(taken.recipe, details=details)), reason)


def explained(trained: Trained, reason: str) -> Trained:
    """Return what a level hands over with one more reason, if there is one."""
    reasons = (*filter(None, (reason,)), *trained.recipe.reasons)
    return replace(trained, recipe=replace(trained.recipe, reasons=reasons))


def _clip_losses(answers: Answers, clips: Tensor) -> Tensor:
    """Return the weighted cross entropy of the ``clips``, sorted numbers: -> (C,)."""
    chosen = torch.isin(answers.clips, clips)
    labels, numbers = answers.labels[chosen], answers.clips[chosen]
    means, _ = mean_by_clip(answers.calibrated[chosen], numbers)
    truth = labels_by_clip(labels, numbers)
    return window_weights(truth, means.shape[1]) * window_errors(means, truth)
