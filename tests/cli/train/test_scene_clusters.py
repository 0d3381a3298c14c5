"""Scenes by pictures, folds by scene, and what the background alone tells, on pictures with known scenes."""

from collections import Counter

import numpy as np
import pytest

from tubelet.service.cli.train.data.scene_clusters import (
    background_accuracy,
    find_scenes,
    median_pictures,
    scene_folds,
)

RNG = np.random.default_rng(0)
ROOMS = RNG.integers(0, 256, (4, 32, 32, 3)).astype(np.float32)


def filmed(room: int, noise: float = 12.0, light: float = 1.0) -> np.ndarray:
    """A picture of a room under some light, with noise."""
    return (ROOMS[room] * light + RNG.normal(0, noise, (32, 32, 3))).clip(0, 255).astype(np.float32)


def test_the_median_picture_is_the_background() -> None:
    thumbnails = np.repeat(ROOMS[:1, None].astype(np.uint8), 5, axis=1)
    for time in range(5):
        thumbnails[0, time, :, 6 * time : 6 * time + 4] = 255  # somebody walks past
    assert np.array_equal(median_pictures(thumbnails)[0], ROOMS[0])


def test_clips_of_one_room_are_one_scene_in_any_light() -> None:
    pictures = np.stack([filmed(0), filmed(1), filmed(0, light=0.6), filmed(2), filmed(1)])
    assert find_scenes(pictures, [""] * 5).tolist() == [0, 1, 0, 2, 1]


def test_groups_take_precedence_over_pictures() -> None:
    pictures = np.stack([filmed(0), filmed(0), filmed(1), filmed(2), filmed(2)])
    assert find_scenes(pictures, ["a", "b", "a", "", ""]).tolist() == [0, 1, 0, 2, 2]
    assert find_scenes(pictures, ["a", "b", "a", "b", "a"]).tolist() == [0, 1, 0, 1, 0]


def test_black_clips_are_not_one_scene() -> None:
    assert len(set(find_scenes(np.zeros((3, 32, 32, 3), np.float32), [""] * 3).tolist())) == 3


def test_many_clips_are_compared_in_blocks() -> None:
    pictures = np.stack([filmed(number % 4) for number in range(1100)])
    assert find_scenes(pictures, [""] * 1100).tolist() == [number % 4 for number in range(1100)]


def test_folds_keep_scenes_together_and_labels_balanced() -> None:
    scenes = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8]
    labels = ["a", "a", "b", "b", *"abababab", *"abab"]
    folds = scene_folds(scenes, labels, 4)
    assert set(folds.tolist()) == {0, 1, 2, 3}
    assert len({(scene, fold) for scene, fold in zip(scenes, folds.tolist(), strict=True)}) == len(
        set(scenes)
    )
    counts = Counter(zip(folds.tolist(), labels, strict=True))
    assert all(1 <= counts[fold, label] <= 3 for fold in range(4) for label in "ab")


@pytest.mark.parametrize(("rooms_tell_labels", "wanted"), [(True, (0.0, 1.0)), (False, (1.0, 1.0))])
def test_a_background_that_tells_labels_is_seen(rooms_tell_labels: bool, wanted: tuple[float, float]) -> None:
    # Rooms 0 and 1 look alike, and so do 2 and 3: the nearest other room has the other label, or the same.
    alike = [ROOMS[0], 0.9 * ROOMS[0], ROOMS[2], 0.9 * ROOMS[2]]
    pictures = np.stack([(alike[room] + copy).astype(np.float32) for room in range(4) for copy in range(2)])
    scenes = [room for room in range(4) for _ in range(2)]
    labels = [("abab"[room] if rooms_tell_labels else "aabb"[room],) for room in scenes]
    found = (background_accuracy(pictures, labels, scenes), background_accuracy(pictures, labels, None))
    assert found == wanted


def test_without_another_scene_nothing_is_right() -> None:
    assert background_accuracy(np.stack([filmed(0), filmed(0)]), [("a",), ("a",)], [0, 0]) == 0


def test_the_background_of_clips_with_several_labels_counts_by_overlap() -> None:
    pictures = np.stack([filmed(0), filmed(0)])
    assert background_accuracy(pictures, [("a", "b"), ("b", "c")], None) == pytest.approx(1 / 3)
    assert background_accuracy(pictures, [("a", "b"), ("b", "a")], None) == 1
    assert background_accuracy(pictures, [(), ()], None) == 1
    assert background_accuracy(pictures, [(), ("a",)], None) == 0


def test_clips_with_several_labels_and_with_none_are_spread_over_folds() -> None:
    labels = [("a", "b"), ("a",), (), ()] * 4
    folds = scene_folds(range(16), labels, 4)
    for wanted in ((), ("a",), ("a", "b")):
        assert set(folds[[each == wanted for each in labels]].tolist()) == {0, 1, 2, 3}
