"""Maps as a file of arrays, as NumPy reads them, without pickles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_video_page import answer
from tests.support.segment_maps import RECTANGLE, segment_map
from tubelet.service.report.maps.map_file import write_maps
from tubelet.service.types.explanation import ExplainedVideo, MapQuestion


def test_a_file_holds_every_map_with_its_times_and_question(tmp_path: Path) -> None:
    first = (segment_map(0, 1, steps=4, label="a"), segment_map(1, 2, steps=6, label="größer"))
    heads = MapQuestion("attention", layer=2, head=0)
    second = tuple(replace(each, question=heads) for each in first)
    found = [ExplainedVideo(answer(), maps) for maps in (first, second)]
    path = tmp_path / "new" / "maps.npz"
    for _ in range(2):  # the second time, it is replaced
        write_maps(path, "clip\udce9.mp4", found, {"heads": np.ones((2, 3), np.float32)})
    with np.load(path, allow_pickle=False) as arrays:
        held = dict(arrays)
    assert held["patches"].shape == (20, 3, 2)
    assert held["map"].tolist() == [0] * 4 + [1] * 6 + [2] * 4 + [3] * 6
    for number, each in enumerate([*first, *second]):
        steps = held["map"] == number
        assert (held["patches"][steps] == each.map).all()
        assert (held["start_s"][steps] == each.start_s).all()
        assert (held["end_s"][steps] == each.end_s).all()
        assert held["patches"][steps].sum() + held["on_no_patch"][number] == pytest.approx(1)
    assert held["segment_start_s"].tolist() == [0, 1, 0, 1]
    assert held["segment_end_s"].tolist() == [1, 2, 1, 2]
    assert held["label"].tolist() == ["a", "größer", "", ""]
    assert held["against"].tolist() == [""] * 4
    assert held["method"].tolist() == ["relevance"] * 2 + ["attention"] * 2
    assert held["layer"].tolist() == [-1, -1, 2, 2]
    assert held["head"].tolist() == [-1, -1, 0, 0]
    assert held["rectangle"].tolist() == [
        RECTANGLE.left,
        RECTANGLE.top,
        RECTANGLE.right,
        RECTANGLE.bottom,
    ]
    assert (str(held["video"]), str(held["model"])) == (r"clip\xe9.mp4", "camera-motion")
    assert held["heads"].shape == (2, 3)


def test_an_archive_of_somebody_else_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    np.savez(path, mine=np.arange(3))
    with pytest.raises(FileExistsError, match="tubelet did not write it"):
        write_maps(path, "clip.mp4", [ExplainedVideo(answer(), (segment_map(0, 1, steps=2),))], {})
    assert np.load(path)["mine"].tolist() == [0, 1, 2]
