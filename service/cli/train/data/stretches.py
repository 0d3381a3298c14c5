"""Stretches of time of long videos as scenes, where the data has too few videos for scenes of their own.

N clips.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.data_checks import Finding

MIN_SCENES = 3
"""Scenes that are needed: one to measure on, one to choose on, and one to train on."""
_MOST = 10  # stretches of a video
_CLIPS = 3  # of a stretch, at least


def with_stretches(
    clips: Sequence[Clip], scenes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[Finding, ...]]:
    """Return the scene of each clip, (N,), and a note where stretches of time take the place of videos.

    It is so where the clips to train on have fewer scenes than are needed, and are parts of videos without
    groups. A video with parts of several labels is then cut into stretches with equally many parts, but
    never where parts overlap. Parts without times are in their order.
    """
    trained = {int(scene) for clip, scene in zip(clips, scenes, strict=True) if not clip.is_test}
    if len(trained) >= MIN_SCENES:
        return scenes, ()
    of_video: defaultdict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        if clip.is_grouped_by_video:
            of_video[clip.group].append(number)
    found, counts = scenes.copy(), Counter[str]()
    for video, numbers in of_video.items():
        if len({clips[number].label for number in numbers}) > 1:
            numbers.sort(key=lambda number: (clips[number].range_s or (0.0, 0.0))[0])
            stretches = _stretches([clips[number] for number in numbers])
            found[numbers] = scenes.max() + 1 + sum(counts.values()) + np.array(stretches)
            counts[video] = stretches[-1] + 1
    if not counts:
        return scenes, ()
    name, number = next(iter(counts.items()))
    videos = name if len(counts) == 1 else f"{len(counts)} videos"
    sentence = (
        f"the clips are parts of {videos}: {sum(counts.values())} stretches of time count as scenes, so that "
        "the figures tell how well the model knows other times of the same video, not other videos"
    )
    return np.unique(found, return_inverse=True)[1], (Finding(sentence),)


def _stretches(parts: Sequence[Clip]) -> list[int]:
    """Number the stretch of each part of a video, from 0; parts are in the order of their starts."""
    count = max(1, min(_MOST, len(parts) // _CLIPS))
    found, latest_end, last_cut = [], 0.0, 0
    for number, part in enumerate(parts):
        start, end = part.range_s or (latest_end, latest_end)
        if start >= latest_end:
            last_cut = number * count // len(parts)
        latest_end = max(latest_end, end)
        found.append(last_cut)
    _, numbered = np.unique(found, return_inverse=True)
    return numbered.tolist()
