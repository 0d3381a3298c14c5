"""What stands out about labels and pictures before training."""

from dataclasses import replace

import numpy as np

from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.data_checks import RARE, check_labels, check_test_split, find_duplicates


def clip(name: str, label: str, range_s: tuple[float, float] | None = None) -> Clip:
    return Clip(name, f"/{name}", label, range_s=range_s)


def test_labels_that_differ_by_case_are_rare_or_of_one_scene() -> None:
    clips = [clip(str(number), "Fight") for number in range(RARE)]
    clips += [clip("x", "fight"), clip("y", "fight"), clip("z", "calm")]
    said = [finding.sentence for finding in check_labels(clips, range(len(clips)))]
    assert said[0] == "the labels 'Fight' and 'fight' differ by case or blanks alone, and are kept apart"
    assert said[1].startswith("label 'calm' has 1 clip, all of one scene")
    assert said[2] == "label 'fight' is rare: 2 clips"
    assert len(said) == 3


def test_nothing_stands_out() -> None:
    clips = [clip(f"{label}{number}", label) for label in "ab" for number in range(RARE)]
    assert check_labels(clips, range(len(clips))) == []


def test_equal_files_and_nearly_equal_pictures_are_found() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.integers(0, 256, (2, 5, 32, 32, 3))
    encoded_again = (first + rng.integers(-2, 3, first.shape)).clip(0, 255)
    clips = [clip("1", "a"), clip("2", "a"), clip("3", "a"), clip("4", "b")]
    digests = {"/1": "x", "/2": "y", "/3": "x", "/4": "z"}
    thumbnails = np.stack([first, other, first, encoded_again]).astype(np.uint8)
    assert [(each.sentence, each.clips) for each in find_duplicates(clips, digests, thumbnails)] == [
        ("1 and 3 have the same content", ("1", "3")),
        ("1 and 4 have nearly the same pictures, but the labels 'a' and 'b'", ("1", "4")),
        ("3 and 4 have nearly the same pictures, but the labels 'a' and 'b'", ("3", "4")),
    ]


def test_scenes_of_the_test_split_that_training_knows_are_found() -> None:
    clips = [clip("1", "a"), replace(clip("2", "a"), is_test=True), replace(clip("3", "b"), is_test=True)]
    (found,) = check_test_split(clips, [0, 0, 1])
    assert found.clips == ("2",)
    assert found.sentence.startswith("1 clip of the test split, 2 for one, show scenes that are in training")
    assert check_test_split(clips, [0, 1, 1]) == []


def test_labels_that_are_numbers_are_said() -> None:
    clips = [clip(f"{label}{number}", label) for label in ("0", "12") for number in range(RARE)]
    (found,) = check_labels(clips, range(len(clips)))
    assert found.sentence.startswith(
        "all labels are numbers, and the model will answer with numbers: --labels"
    )
