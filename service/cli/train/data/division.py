"""Which clips a level trains on, chooses the best epoch on, and is measured on: scenes are never divided."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations, product

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.checked_clips import Checked
from tubelet.service.cli.train.data.scene_clusters import scene_folds

FOLDS = 5
"""Parts into which scenes are divided, if there are so many."""


@dataclass(frozen=True, slots=True)
class Division:
    """The numbers of the clips of each part; ``measured_on`` says in words what the figures are of."""

    train: tuple[int, ...] = field(repr=False)
    validation: tuple[int, ...] = field(repr=False)
    measured: tuple[int, ...] = field(repr=False)
    measured_on: str
    has_test: bool


def divide(checked: Checked, used: Sequence[int]) -> Division:
    """Divide the clips with the numbers ``used``.

    The test split is measured on, if there is one, else a part of the scenes; the split for validation, or
    another part, is for validation, and the rest is trained on.

    Raises:
        InvalidDataset: a label would have no clip to train on.
    """
    clips = checked.survey.clips
    test = tuple(number for number in used if clips[number].is_test)
    rest = [number for number in used if not clips[number].is_test]
    given = tuple(number for number in rest if clips[number].is_validation)
    free = [number for number in rest if number not in given]
    scenes = checked.scenes[free].tolist()
    count = min(FOLDS, len(set(scenes)))
    folds = scene_folds(scenes, [clips[number].labels for number in free], count)
    parts = [tuple(free[index] for index in (folds == fold).nonzero()[0]) for fold in range(count)]
    labels = {label for number in rest for label in clips[number].labels}
    for validation, measured in product([given], parts) if given else permutations(parts, 2):
        held_out = {*validation, *(() if test else measured)}
        train = tuple(number for number in rest if number not in held_out)
        if {label for number in train for label in clips[number].labels} == labels:
            measured_on = "the test split" if test else f"one of {count} parts of the scenes, held out"
            return Division(train, validation, test or measured, measured_on, bool(test))
    beside = ", beside those of the split val" if given else ""
    raise InvalidDataset(
        "with some scenes held out to choose and to measure on, a label has no clips to train on: each label "
        f"needs clips of two scenes or more{beside}; --level probe can do with fewer"
    )
