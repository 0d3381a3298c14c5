"""Which clips are trained on, chosen on and measured on."""

from dataclasses import replace

import numpy as np
import pytest

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.checked_clips import Checked
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.division import divide
from tubelet.service.cli.train.data.survey import Survey

CLIPS = tuple(Clip(str(number), f"/{number}", "ab"[number % 2]) for number in range(20))
SCENES = np.arange(20) // 2  # each has both labels


def checked(clips: tuple[Clip, ...]) -> Checked:
    none = np.zeros((0, 1, 1, 1, 3), np.uint8)
    return Checked(Survey(clips, none, (), {}, {}, {}), SCENES, (), None)


def marked(validation: range, test: range = range(0)) -> tuple[Clip, ...]:
    return tuple(
        replace(clip, is_validation=number in validation, is_test=number in test)
        for number, clip in enumerate(CLIPS)
    )


def test_parts_of_the_scenes_where_the_data_names_none() -> None:
    found = divide(checked(CLIPS), range(20))
    assert sorted((*found.train, *found.validation, *found.measured)) == list(range(20))
    assert (len(found.train), len(found.validation), len(found.measured)) == (12, 4, 4)
    parts = [{int(SCENES[each]) for each in part} for part in (found.train, found.validation, found.measured)]
    assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]


def test_the_split_for_validation_is_used_as_it_is() -> None:
    found = divide(checked(marked(range(6))), range(20))
    assert found.validation == tuple(range(6))
    assert sorted((*found.train, *found.measured)) == list(range(6, 20))
    assert not found.has_test
    found = divide(checked(marked(range(6), range(6, 10))), range(20))
    assert (found.validation, found.measured) == (tuple(range(6)), tuple(range(6, 10)))
    assert found.train == tuple(range(10, 20))


def test_a_label_that_is_for_validation_alone_is_refused() -> None:
    clips = tuple(replace(clip, is_validation=clip.label == "b") for clip in CLIPS)
    with pytest.raises(
        InvalidDataset, match="two scenes or more, beside those of the split val; --level probe"
    ):
        divide(checked(clips), range(20))
