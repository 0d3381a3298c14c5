"""What stands out about labels and pictures before training."""

from dataclasses import replace

import numpy as np
import pytest

from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.data_checks import (
    RARE,
    check_labels,
    check_left_out,
    check_scenes,
    check_test_split,
    find_duplicates,
)
from tubelet.service.cli.train.data.stretches import with_stretches
from tubelet.service.cli.train.report.probe_report import check_lines


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
        ("1, 3 and 4 have nearly the same pictures, but the labels 'a' and 'b'", ("1", "3", "4")),
        ("1 and 3 have the same content", ("1", "3")),
    ]
    parts = [replace(each, video="/1", range_s=(float(at), at + 1.0)) for at, each in enumerate(clips)]
    assert find_duplicates(parts, digests, thumbnails) == [], "parts of one video show one scene"
    equal = [clip(str(number), "abcd"[number % 4]) for number in range(5)]
    (found,) = find_duplicates(equal, dict.fromkeys((each.video for each in equal), "x"), thumbnails[[0] * 5])
    assert found.sentence == "0, 1 and 3 more have the same content, but the labels 'a', 'b' and 2 more"
    assert len(found.clips) == 5


def test_many_labels_that_are_rare_or_of_one_scene_have_one_note() -> None:
    clips = [clip(f"{label}{number}", f"label {label:02}") for label in range(20) for number in range(3)]
    (found,) = check_labels(clips, range(len(clips)))
    assert found.sentence.startswith(
        "20 labels are rare, with fewer than 10 clips: 'label 00' (3), 'label 01'"
    )
    assert found.sentence.endswith("'label 11' (3) and 8 more")
    assert len(found.clips) == 60
    (found,) = check_labels(clips, [number // 3 for number in range(60)])
    assert found.sentence.startswith("20 labels have clips of one scene each, 'label 00' (3), ")


def test_labels_of_which_no_clip_can_be_decoded_are_found() -> None:
    clips = [clip("1", "a"), clip("2", "b"), clip("3", "b")]
    (found,) = check_left_out(clips, clips[:1])
    assert found.sentence == "label 'b' is lost: none of its 2 clips can be decoded"
    assert check_left_out(clips, clips[:2]) == []


def test_a_scene_of_most_clips_is_found() -> None:
    clips = [clip(str(number), "ab"[number % 2]) for number in range(10)]
    (found,) = check_scenes(clips, [0] * 6 + [1, 2, 3, 4])
    assert found.sentence.startswith("one scene has 6 of 10 clips, since their pictures are alike")
    assert found.clips == tuple("012345")
    assert check_scenes(clips, [0] * 5 + [1, 2, 3, 4, 5]) == []
    assert check_scenes([replace(each, group="x") for each in clips], [0] * 6 + [1, 2, 3, 4]) == []


def parts_of(video: str, count: int, labels: str = "ab") -> list[Clip]:
    """Return parts of two seconds of a video, one after the other."""
    return [
        replace(
            clip(f"{video} {at}", labels[at % len(labels)], (2.0 * at, 2.0 * at + 2)),
            video=video,
            group=video,
            is_grouped_by_video=True,
        )
        for at in range(count)
    ]


def test_stretches_of_one_video_are_scenes() -> None:
    clips = parts_of("long.mp4", 36)
    scenes, _ = with_stretches(clips[::-1], np.zeros(36, np.int64))
    assert scenes.tolist() == sorted(scenes.tolist(), reverse=True), "in any order of the list"
    scenes, (found,) = with_stretches(clips, np.zeros(36, np.int64))
    assert scenes.tolist() == sorted(scenes.tolist()), "in the order of time"
    assert np.bincount(scenes).tolist() == [4, 4, 3, 4, 3, 4, 4, 3, 4, 3]
    assert found.sentence.startswith("the clips are parts of long.mp4: 10 stretches of time count as scenes")

    overlapping = [replace(each, range_s=(0.0, 40.0)) if at == 3 else each for at, each in enumerate(clips)]
    scenes, _ = with_stretches(overlapping, np.zeros(36, np.int64))
    assert set(scenes[3:20].tolist()) == {0}, "parts that overlap are one stretch"

    two = [*clips[:9], *parts_of("other.mp4", 9)]
    scenes, (found,) = with_stretches(two, np.repeat([0, 1], 9))
    assert np.bincount(scenes).tolist() == [3] * 6
    assert found.sentence.startswith("the clips are parts of 2 videos: 6 stretches of time")


@pytest.mark.parametrize(
    "clips",
    [
        [replace(each, is_grouped_by_video=False) for each in parts_of("long.mp4", 36)],
        [*parts_of("1.mp4", 9, "a"), *parts_of("2.mp4", 9, "b")],
        [each for video in "123" for each in parts_of(video, 9)],
    ],
    ids=["the data names the scene", "each video has one label", "there are enough videos"],
)
def test_videos_that_stay_scenes(clips: list[Clip]) -> None:
    videos = sorted({each.video for each in clips})
    scenes = np.array([videos.index(each.video) for each in clips])
    found, said = with_stretches(clips, scenes)
    assert (found.tolist(), said) == (scenes.tolist(), ())


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


def test_of_many_clips_that_are_left_out_the_first_are_named() -> None:
    left_out = {f"{number}.mp4": "no video" if number % 3 else "empty" for number in range(1000)}
    lines = check_lines(left_out, ())
    assert lines[0] == "left out 0.mp4: empty"
    assert lines[8:] == ["left out 992 more, --json names them all: no video (661); empty (331)"]
    different = {f"{number}.mp4": f"reason {number}" for number in range(20)}
    assert check_lines(different, ())[-1].endswith(
        "reason 8 (1); reason 9 (1); reason 10 (1); and other reasons"
    )
