"""Which clips are evaluated: the test split, and those that a model was not trained on."""

import json
from pathlib import Path

import pytest
from blake3 import blake3

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.evaluation.selection import options_of, seen_in_training, select
from tubelet.service.cli.train.data.clips import Clip, read_any_clips
from tubelet.service.types.request import Options
from tubelet.service.types.video import NS_PER_S


def clip(
    folder: Path, name: str, range_s: tuple[float, float] | None = None, *, is_test: bool = False
) -> Clip:
    return Clip(f"{name} {range_s}", str(folder / name), "a", is_test=is_test, range_s=range_s)


def trained_on(folder: Path, *lines: tuple[bytes, tuple[float, float | None] | None, str]) -> Path:
    file = folder / "clips.jsonl"
    file.write_text(
        "".join(
            json.dumps({"blake3": blake3(content).hexdigest(), "range_s": part, "split": split}) + "\n"
            for content, part, split in lines
        )
    )
    return file


def test_clips_are_known_by_their_content_and_time(tmp_path: Path) -> None:
    for name in ("a", "copy of a", "b", "c"):
        (tmp_path / name).write_text(name[-1])
    file = trained_on(
        tmp_path,
        (b"a", None, "train"),
        (b"b", (2.0, 4.0), "train"),
        (b"b", (6.0, None), "train"),
        (b"c", None, "test"),
    )
    seen = [
        clip(tmp_path, "copy of a"),
        clip(tmp_path, "a", (1.0, 2.0)),
        clip(tmp_path, "b"),
        clip(tmp_path, "b", (3.0, 5.0)),
    ]
    seen += [clip(tmp_path, "b", (9.0, 10.0))]
    unseen = [clip(tmp_path, "c"), clip(tmp_path, "b", (4.0, 6.0)), clip(tmp_path, "missing")]
    names = seen_in_training([*seen, *unseen], file)
    assert names == {each.name for each in seen}
    assert select([*seen, *unseen], "unseen", names) == tuple(unseen)


def test_what_cannot_be_selected_is_said(tmp_path: Path) -> None:
    one = clip(tmp_path, "a")
    assert select([one], None, None) == (one,)
    with pytest.raises(InvalidDataset, match="has no clips of the split test"):
        select([one], "test", None)
    with pytest.raises(InvalidDataset, match="not known which clips the model was trained on"):
        select([one], "unseen", None)
    with pytest.raises(InvalidDataset, match="was trained on all 1 clips"):
        select([one], "unseen", frozenset({one.name}))
    (tmp_path / "clips.jsonl").write_text("{}\n")
    with pytest.raises(InvalidDataset, match=r"clips\.jsonl cannot be read"):
        seen_in_training([one], tmp_path / "clips.jsonl")


def test_a_part_is_classified_alone(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(
        "path,label,start,end,split\nx.mp4,a,1.5,2,\nhttps://host/y.mp4,a,3,,test\n"
    )
    part, rest = read_any_clips(tmp_path / "clips.csv")
    assert options_of(part, Options()).ranges_ns == ((1_500_000_000, 2_000_000_000),)
    ((start, end),) = options_of(rest, Options()).ranges_ns
    assert (start, rest.video) == (3 * NS_PER_S, "https://host/y.mp4")
    assert end > 10**6 * NS_PER_S
    assert select((part, rest), "test", None) == (rest,)
