"""Videos as rows by a real pipeline: versions, ranges, names, vectors, metrics."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from tests.support.sample_clip import panning_clip
from tubelet.service.batch.classifier import BatchClassifier, open_batch_classifier
from tubelet.service.batch.plan import BatchPlan, make_plan
from tubelet.service.batch.source.items import file_item, uri_item
from tubelet.service.config.config import Config, load_config
from tubelet.service.errors import MalformedOption, StorageFull
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.video import NS_PER_S

# One loop for all tests, since the pipeline belongs to it.
pytestmark = pytest.mark.asyncio(loop_scope="module")
_PAUSE_S = 0.015625  # no other pause is as long
_OPTIONS = Options(windowing=Sliding.of_seconds(window_s=2, stride_s=1))


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(engine={"precision": "fp32"}, decode={"workers": 1})


@pytest.fixture(scope="module")
def plan(config: Config) -> BatchPlan:
    return make_plan(_OPTIONS, config, embeddings=True)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "pan.mp4"
    path.write_bytes(panning_clip(4.0))
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def classifier(config: Config, plan: BatchPlan, metrics: Metrics) -> AsyncIterator[BatchClassifier]:
    async with open_batch_classifier(config, plan, 4, metrics) as opened:
        yield opened


async def test_the_bytes_of_a_file_give_the_rows_of_the_file(
    classifier: BatchClassifier, video: Path
) -> None:
    item = file_item(str(video))
    there, here = await classifier.classify(item), await classifier.classify(item, video.read_bytes())
    assert [row["labels"] for row in here.segments] == [row["labels"] for row in there.segments]
    assert (here.video["frames"], here.video["etag"]) == (there.video["frames"], "")
    broken = await classifier.classify(item, b"no video")
    assert broken.video["reason"] == "NOT_A_VIDEO"


async def test_segments_have_the_mean_of_the_vectors_of_their_windows(
    classifier: BatchClassifier, video: Path
) -> None:
    rows = await classifier.classify(file_item(str(video)))
    vectors = np.stack([row["embedding"] for row in rows.segments])
    assert [(row["start_s"], row["end_s"]) for row in rows.segments] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert vectors.dtype == np.float32
    # The windows are [0, 2), [1, 3) and [2, 4). The first and last segments have one of them, the others have
    # two, of which one is that in the middle.
    middle = 2 * vectors[1] - vectors[0]
    assert np.allclose(middle, 2 * vectors[2] - vectors[3], atol=1e-4)
    assert not np.allclose(middle, vectors[0], atol=1e-2)


async def test_ranges_are_each_video_s_own(classifier: BatchClassifier, video: Path) -> None:
    rows = await classifier.classify(file_item(str(video), ((NS_PER_S, 3 * NS_PER_S),)))
    assert [(row["start_s"], row["end_s"]) for row in rows.segments] == [(1, 2), (2, 3)]
    assert rows.video["ranges"] == [[1.0, 3.0]]


async def test_a_file_that_was_replaced_since_it_was_found_fails(
    classifier: BatchClassifier, video: Path
) -> None:
    rows = await classifier.classify(replace(file_item(str(video)), etag="1-1"))
    assert (rows.video["code"], rows.video["reason"]) == ("ABORTED", "URI_CHANGED")
    assert "was replaced after it was found: it was version 1-1" in rows.video["message"]


async def test_names_may_be_no_utf_8_and_have_any_sign(
    classifier: BatchClassifier, video: Path, tmp_path: Path
) -> None:
    name = tmp_path / b"caf\xe9 50 % #?;\n\\.mp4".decode(errors="surrogateescape")
    name.write_bytes(video.read_bytes())
    rows = await classifier.classify(file_item(str(name)))
    assert rows.failure is None
    assert rows.video["uri"].endswith("/caf%E9%2050%20%25%20%23%3F%3B%0A%5C.mp4")


async def test_what_cannot_be_read_is_a_row_and_is_counted(
    classifier: BatchClassifier, metrics: Metrics, tmp_path: Path
) -> None:
    missing = await classifier.classify(file_item(str(tmp_path / "missing.mp4")))
    forbidden = await classifier.classify(uri_item("s3://bucket/a.mp4"))
    broken = await classifier.classify(uri_item("s3://bucket/%zz"))
    reasons = [rows.video["reason"] for rows in (missing, forbidden, broken)]
    assert reasons == ["URI_NOT_FOUND", "URI_NOT_ALLOWED", "FILE_NOT_READABLE"]
    assert all(rows.segments == [] for rows in (missing, forbidden, broken))
    for reason in reasons:
        labels = {"reason": reason, "model": "camera-motion"}
        assert metrics.registry.get_sample_value("tubelet_failed_requests_total", labels) == 1
    labels = {"method": "batch", "model": "camera-motion", "code": "NOT_FOUND"}
    assert metrics.registry.get_sample_value("tubelet_requests_total", labels) == 1
    assert metrics.registry.get_sample_value("tubelet_videos_in_flight") == 0


@pytest.mark.parametrize(("failures", "reason", "pauses"), [(1, "", 1), (2, "", 2), (3, "STORAGE_FULL", 2)])
async def test_a_video_is_tried_three_times_while_the_disk_is_full(
    classifier: BatchClassifier,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    reason: str,
    pauses: int,
) -> None:
    pwrite, sleep = os.pwrite, asyncio.sleep
    full, slept = iter(range(failures)), list[float]()

    def on_a_full_disk(*arguments: Any) -> int:
        """Fail as often as asked, as on a disk where other videos free their room."""
        if next(full, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(*arguments)

    async def noted(delay: float, *arguments: Any) -> None:
        """Sleep, and note for how long."""
        slept.append(delay)
        await sleep(delay, *arguments)

    monkeypatch.setattr(os, "pwrite", on_a_full_disk)
    monkeypatch.setattr(asyncio, "sleep", noted)
    monkeypatch.setattr(StorageFull, "retry_after_s", _PAUSE_S)
    content = video.read_bytes()
    rows = await classifier.classify(file_item(str(video)), content)
    attempts = min(failures + 1, 3)
    assert (rows.video["reason"], rows.video["attempts"]) == (reason, attempts)
    assert rows.video["read_bytes"] == attempts * len(content)
    assert slept.count(_PAUSE_S) == pauses


async def test_options_that_no_video_fits_are_refused_at_once(config: Config) -> None:
    plan = make_plan(Options(windowing=Sliding.of_seconds(window_s=1000)), config, embeddings=False)
    with pytest.raises(MalformedOption, match="window"):
        async with open_batch_classifier(config, plan, 4, Metrics()):
            pass
