"""Clips of one scene are all for training or all for tests."""

from pathlib import Path

import pytest

from tubelet.service.cli.training.scene_split import is_test, is_validation, scene_of


def test_scenes_fall_on_one_side_of_the_split(tmp_path: Path) -> None:
    clips = [
        "real/carphone_pristine.mp4",
        "odd/carphone_distorted.mp4",
        "real/asl/yes.mkv",
        "real/asl/no.mkv",
    ]
    scenes = [scene_of(tmp_path / clip, tmp_path) for clip in clips]
    assert scenes[0] == scenes[1] != scenes[2] == scenes[3]
    assert scene_of(tmp_path / "real/yoga.mp4", tmp_path) == "real/yoga.mp4"
    share = sum(is_test(f"scene {number}") for number in range(2000)) / 2000
    assert share == pytest.approx(0.2, abs=0.03)


def test_scenes_of_a_scenes_file_are_kept_together(tmp_path: Path) -> None:
    for folder in ("fight", "calm"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    (tmp_path / "set" / "scenes.json").write_text('{"fight__a.mp4": 3, "calm__b.mp4": 3, "calm__c.mp4": 4}')
    a, b, c = (
        scene_of(tmp_path / "set" / clip, tmp_path) for clip in ("fight/a.mp4", "calm/b.mp4", "calm/c.mp4")
    )
    assert a == b != c


def test_scenes_for_validation_are_none_of_those_for_tests() -> None:
    scenes = [f"scene-{number}" for number in range(4000)]
    validation = [scene for scene in scenes if is_validation(scene)]
    assert not any(map(is_test, validation))
    assert 0.10 < len(validation) / len(scenes) < 0.14  # 15 % of the four fifths that are not for tests
