"""Runs over several videos: what the failure of one video means for the others."""

import pytest

from tubelet.service.cli.runs.runner import Failure, run_as_completed
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Emit
from tubelet.service.types.video import VideoMetadata

_METADATA = VideoMetadata("matroska", "h264", 64, 48, 1.0, 1, 1, 1)


async def _classify(video: str, _: Options, emit: Emit) -> Classification:
    await emit(_METADATA)
    if video == "odd.mp4":
        raise ZeroDivisionError("no frames a second")
    return Classification(_METADATA, "camera-motion", "1.0.0", (), (), {})


async def test_unexpected_error_fails_its_video_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    videos = [(name, Options()) for name in ("good.mp4", "odd.mp4", "good.mp4")]
    answers = {
        number: item
        async for number, item in run_as_completed(_classify, videos, 1)
        if isinstance(item, Classification | Failure)
    }
    failure = answers.pop(1)
    assert failure == Failure("INTERNAL", "INTERNAL", "unexpected ZeroDivisionError: no frames a second")
    assert [type(answer) for answer in answers.values()] == [Classification] * 2
    assert "cannot classify odd.mp4" in caplog.text
    assert "ZeroDivisionError" in caplog.text
