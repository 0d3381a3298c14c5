"""Group clips by scene, and hold scenes out for tests."""

import hashlib
import json
import re
from pathlib import Path

# Pattern in a clip's path -> its scene, for clips of one recording, which must be on one side of the split.
SAME_SCENE = (
    (r"asl/", "asl"),
    (r"bbb|buck_?bunny", "big-buck-bunny"),
    (r"carphone", "carphone"),
    (r"mmaction2_(test|rawvideo)", "cleaning-a-pool"),
    (r"androidx/(sample|h265|edit_list|testvid|iibbibb)", "androidx-sample"),
    (r"test_iibbibb", "androidx-sample"),
    (r"androidx/bear", "bear"),
    (r"nasa_13013|test_non_zero_start|discard_first_keyframe", "nasa-13013"),
    (r"extradata-reload", "extradata-reload"),
    (r"corpus/moz_(test|mediasource|short|small)", "mozilla-test"),
    (r"sample-fisbone", "fisbone"),
    (r"mp4ff/(av1|vp8|vp9)\.ivf", "mp4ff-ivf"),
    (r"decord/video_", "decord-rotation"),
    (r"testsrc", "testsrc"),
)
TEST_SHARE = 0.2  # of the scenes, held out for tests
VALIDATION_SHARE = 0.15  # of the other scenes, where a validation split is wanted


def scene_of(path: Path, root: Path) -> str:
    """Return the scene of a clip below ``root``.

    A ``scenes.json`` two folders up, which maps clips to numbers of scenes, takes precedence.
    """
    name = path.relative_to(root).as_posix()
    scenes = path.parent.parent / "scenes.json"
    if scenes.is_file():
        number = json.loads(scenes.read_text()).get(f"{path.parent.name}__{path.name}")
        if number is not None:
            return f"{path.parent.parent.name}-{number}"
    for pattern, scene in SAME_SCENE:
        if re.search(pattern, name, re.IGNORECASE):
            return scene
    return name


def is_test(scene: str) -> bool:
    """Return whether a scene is held out. Its name alone decides, so that new clips do not move others."""
    return _share(scene, 0) < TEST_SHARE


def is_validation(scene: str) -> bool:
    """Return whether a scene is for validation, of the scenes that are not held out for tests."""
    return not is_test(scene) and _share(scene, 4) < VALIDATION_SHARE


def _share(scene: str, first: int) -> float:
    """Return a number in 0..1 made of four bytes of the hash of a scene's name, from byte ``first``."""
    digest = hashlib.sha256(scene.encode()).digest()
    return int.from_bytes(digest[first : first + 4], "big") / 2**32
