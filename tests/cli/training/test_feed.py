"""What training reads of videos: the right frames of each, in order, whatever is wrong with some of them."""

import logging
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from PIL import Image

from tests.support.videos import numbered_picture, read_number, render, shared_clip, worker_pids
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.samples import make_batches
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.training.feed import plan_windows, read_samples, start_decoders
from tubelet.service.config.config import DecodeConfig
from tubelet.service.pipeline.planner import make_plan
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.video import VideoMetadata, to_ns

RATE = 10
CONFIG = DecodeConfig(workers=2)
SAMPLING = Sampling(2, 2, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0)
PREPROCESSING = Preprocessing(32, 64, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLANNER = partial(plan_windows, SAMPLING, PREPROCESSING, 2.0)


def video(path: Path, label: str = "") -> LabelledVideo:
    return LabelledVideo(path.name, str(path), label)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Clips of 3.2 s whose frames have numbers; each begins with another number."""
    return [
        render(
            tmp_path / f"{first}.mp4",
            32,
            rate=RATE,
            draw=lambda number, first=first: numbered_picture(first + number, 128, 64),
        )
        for first in (0, 50, 100)
    ]


def test_windows_overlap_by_half_and_have_the_frames_in_the_middles_of_their_parts(clips: list[Path]) -> None:
    samples = list(read_samples([video(clips[1])], PLANNER, CONFIG))
    assert [sample.units.shape for sample in samples] == [(2, 2, 32, 64, 3)] * 2
    numbers = [[read_number(frame) for unit in sample.units for frame in unit] for sample in samples]
    # Of a window of 2 s with 4 frames, the parts' middles are at 0.25, 0.75, 1.25 and 1.75 s.
    assert numbers == [[50 + 2, 50 + 7, 50 + 12, 50 + 17], [50 + 12, 50 + 17, 50 + 22, 50 + 27]]


def test_a_picture_of_the_middle_of_each_video(clips: list[Path]) -> None:
    pictures: dict[str, bytes] = {}
    list(
        read_samples(
            [video(clip) for clip in clips],
            PLANNER,
            CONFIG,
            on_picture=lambda each, jpeg: pictures.update({each.name: jpeg}),
        )
    )
    assert pictures.keys() == {clip.name for clip in clips}
    for name, jpeg in pictures.items():
        picture = Image.open(BytesIO(jpeg))
        assert picture.size == (128, 64)
        assert read_number(np.asarray(picture)) == int(Path(name).stem) + 17  # of frames 2 to 27


@pytest.mark.parametrize("window_s", [1.0, 2.0, 4.0])
def test_a_model_is_measured_on_the_frames_that_serving_samples(window_s: float) -> None:
    metadata = VideoMetadata("mp4", "h264", 64, 64, 25.0, 180, duration_ns=7_200_000_000, size_bytes=1)
    plan, _ = plan_windows(SAMPLING, PREPROCESSING, window_s, LabelledVideo("a", "a", ""), metadata)
    sliding = Sliding(to_ns(window_s), to_ns(window_s / 2))
    (served,) = make_plan(metadata, SAMPLING, Options(windowing=sliding)).grids
    assert [frame_times(grid, 0) for grid in plan.grids] == [
        frame_times(served, window)
        for window in range(served.num_windows)
        if served.window_start(window) == window * served.stride_units
    ]


def frame_times(grid: SamplingGrid, window: int) -> list[int]:
    """Return the times of a window's frames, in nanoseconds."""
    return [
        grid.frame_time_ns(unit, frame)
        for unit in grid.window_units(window)
        for frame in range(grid.frames_per_unit)
    ]


def test_a_video_shorter_than_a_window_is_one_window(tmp_path: Path) -> None:
    short = render(tmp_path / "short.mp4", 8, rate=RATE)
    (sample,) = read_samples([video(short)], PLANNER, CONFIG)
    assert [read_number(frame) for unit in sample.units for frame in unit] == [1, 3, 5, 7]


def test_broken_and_hostile_videos_cost_a_warning_each(
    clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "empty.mp4").touch()
    bomb = render(tmp_path / "bomb.mp4", 3, size=(2048, 2048))
    absent = tmp_path / "absent.mp4"
    listed = [bomb, clips[0], tmp_path / "broken.mp4", clips[1], absent, tmp_path / "empty.mp4", clips[2]]
    config = CONFIG.model_copy(update={"max_pixels": 1_000_000})
    with caplog.at_level(logging.WARNING, "tubelet.service.cli.training.feed"):
        found = [sample.id for sample in read_samples(map(video, listed), PLANNER, config)]
    assert found == ["0.mp4", "0.mp4", "50.mp4", "50.mp4", "100.mp4", "100.mp4"]
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert [line.split(":")[0] for line in said] == [
        "left out bomb.mp4",
        "left out broken.mp4",
        "left out absent.mp4",
        "left out empty.mp4",
    ]
    assert "exceed the limit of 1000000 pixels" in said[0]


def test_a_video_that_is_damaged_in_part_is_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    damaged = shared_clip("odd/corpus/Error_I_P.264")
    (sample,) = read_samples([video(damaged)], PLANNER, CONFIG)
    assert sample.units.shape == (2, 2, 32, 64, 3)
    assert "Error_I_P.264 is used although 5 of 6 frames are damaged" in caplog.messages


def test_workers_end_with_the_feed(clips: list[Path]) -> None:
    feed = read_samples([video(clip) for clip in clips], PLANNER, CONFIG)
    next(feed)
    assert worker_pids()
    feed.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not worker_pids()


def test_workers_are_started_once_for_many_lists(clips: list[Path]) -> None:
    listed = [video(clip) for clip in clips]
    with suppress(KeyboardInterrupt), start_decoders(CONFIG) as decoders:
        workers = worker_pids()
        assert len(workers) == CONFIG.workers
        whole = [sample.units for sample in decoders.read(listed, PLANNER)]
        begun = decoders.read(listed * 20, PLANNER, ahead=10)
        next(begun)
        begun.close()
        again = [sample.units for sample in decoders.read(listed, PLANNER)]
        assert np.array_equal(whole, again)
        assert worker_pids() == workers
        raise KeyboardInterrupt
    assert not worker_pids()


def test_samples_become_batches_of_units_and_label_numbers(clips: list[Path]) -> None:
    labelled = [video(clip, label) for clip, label in zip(clips, ("calm", "wild", "calm"), strict=True)]
    samples = list(read_samples(labelled, PLANNER, CONFIG))
    assert [(each.label, each.id) for each in samples] == [
        *[("calm", "0.mp4")] * 2,
        *[("wild", "50.mp4")] * 2,
        *[("calm", "100.mp4")] * 2,
    ]
    batches = list(make_batches(samples, ("wild", "calm"), 4))
    assert [batch.labels.tolist() for batch in batches] == [[1, 1, 0, 0], [1, 1]]
    assert np.array_equal(batches[0].units[3], samples[3].units)


def test_the_next_video_is_decoded_while_the_reader_computes(clips: list[Path]) -> None:
    planned: SimpleQueue[VideoMetadata] = SimpleQueue()

    def planner(each: LabelledVideo, metadata: VideoMetadata) -> tuple[Plan, Preprocessing]:
        planned.put(metadata)
        return PLANNER(each, metadata)

    feed = read_samples([video(clip) for clip in clips], planner, DecodeConfig(workers=1))
    next(feed)
    for _ in range(2):
        planned.get(timeout=60)
