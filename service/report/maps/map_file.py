"""Maps as a file of NumPy arrays (.npz), for other programs.

E maps, M steps of all maps, R rows and C columns, L layers, A heads, T steps of a window.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tubelet.service.report.own_files import COMMENT_MARK, replacing
from tubelet.service.report.text import decodable
from tubelet.service.types.explanation import ExplainedVideo, SegmentMap

_NO_NUMBER = -1  # of a layer or head that was not asked for


def write_maps(
    path: Path, video: str, answers: Sequence[ExplainedVideo], heads: Mapping[str, np.ndarray]
) -> None:
    """Write all maps of a video.

    Of each map: ``segment_start_s``, ``segment_end_s``, ``on_no_patch`` (E,) float64, ``label``, ``against``
    and ``method`` (E,) text, ``layer`` and ``head`` (E,) int64, -1 if there is none. Of each step of a map:
    ``patches`` (M, R, C) float32, ``start_s`` and ``end_s`` (M,) float64, and ``map`` (M,) int64, the number
    of its map. The ``patches`` of a map sum to 1 with its ``on_no_patch``. ``rectangle`` (4,) float64 is the
    part of the shown picture that the patches cover: left, top, right, bottom, in shares of its width and
    height. ``video``, ``model``, ``version`` and ``fingerprint`` are text. ``heads`` are added as they are.

    Raises:
        OSError: it cannot be written, or would replace a file that tubelet did not write.
    """
    maps = [each for answer in answers for each in answer.maps]
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = COMMENT_MARK.encode()
        for name, values in (_arrays(maps) | _texts(video, answers[0]) | dict(heads)).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def _arrays(maps: Sequence[SegmentMap]) -> dict[str, np.ndarray]:
    """Return what is known of maps and of their steps."""
    questions = [each.question for each in maps]
    rectangle = maps[0].rectangle
    return {
        "patches": np.concatenate([each.map for each in maps]),
        "start_s": np.concatenate([each.start_s for each in maps]),
        "end_s": np.concatenate([each.end_s for each in maps]),
        "map": np.repeat(np.arange(len(maps)), [len(each.map) for each in maps]),
        "segment_start_s": np.array([each.segment.start_s for each in maps]),
        "segment_end_s": np.array([each.segment.end_s for each in maps]),
        "on_no_patch": np.array([each.on_no_patch for each in maps]),
        "label": np.array([each.label or "" for each in questions], np.str_),
        "against": np.array([each.against or "" for each in questions], np.str_),
        "method": np.array([each.method for each in questions], np.str_),
        "layer": np.array([_NO_NUMBER if each.layer is None else each.layer for each in questions]),
        "head": np.array([_NO_NUMBER if each.head is None else each.head for each in questions]),
        "rectangle": np.array([rectangle.left, rectangle.top, rectangle.right, rectangle.bottom]),
    }


def _texts(video: str, answer: ExplainedVideo) -> dict[str, np.ndarray]:
    """Return the names of the video and of the model that saw it."""
    found = answer.classification
    names = {"video": decodable(video), "model": found.model, "version": found.version}
    return {
        name: np.array(text, np.str_) for name, text in (names | {"fingerprint": found.fingerprint}).items()
    }
