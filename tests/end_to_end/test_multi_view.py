"""Multi-view testing over a real channel: the answer is the mean of the model's own logits."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.preprocessing import preprocessing
from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip
from tests.support.videos import decode_file, single_window
from tubelet.models.repository.repository import ModelStore
from tubelet.service.client import Client, ServerError
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options, Views
from tubelet.service.types.video import NS_PER_S

# The default model sees 48x48 of the sample's 480x270, which covers that as 85x48.
_RESIZED = preprocessing(48, 85, "stretch")
_LEFTS = {1: (18,), 3: (0, 18, 37)}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server that computes in float32: bfloat16 rounds more than a wrong view may change."""
    with serving(engine={"precision": "fp32"}) as server:
        yield server


async def _window(pool: DecodePool, start_s: float) -> np.ndarray:
    """Return the units of the first two seconds, before the crop: (S, t, 48, 85, C)."""
    plan = Plan((single_window(start_s, start_s + 2, 4, 4),))
    async with pool.session() as session:
        _, units, _ = await decode_file(session, Path(str(SAMPLE_CLIP)), plan, _RESIZED)
    return np.stack([units[0, unit] for unit in range(4)])


@pytest.mark.parametrize(
    ("range_s", "views", "starts_s"),
    [
        ((7, 10), Views(clips=1, crops=3), (7.5,)),
        ((0, 16), Views(clips=5, crops=1), (0, 3.5, 7, 10.5, 14)),
        ((7, 10), Views(clips=3, crops=3), (7, 7.5, 8)),
    ],
    ids=["crops", "clips", "clips that overlap"],
)
async def test_an_answer_is_the_mean_of_the_logits_of_its_views(
    client: Client, sample: bytes, range_s: tuple[int, int], views: Views, starts_s: tuple[float, ...]
) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        windows = [await _window(pool, start_s) for start_s in starts_s]
    seen = [window[..., left : left + 48, :] for window in windows for left in _LEFTS[views.crops]]
    entry = ModelStore().find("camera-motion")
    with torch.inference_mode():
        logits = entry.load()(torch.from_numpy(np.stack(seen))).double()
    expected = logits.mean(0).softmax(-1).numpy()
    off_alone = np.abs(logits.softmax(-1).numpy() - expected).max(axis=1)
    assert off_alone.min() > 1.5e-4  # no view is so typical that it could be taken for the mean

    range_ns = (range_s[0] * NS_PER_S, range_s[1] * NS_PER_S)
    options = Options(model="camera-motion", top_k=10, windowing=views, ranges_ns=(range_ns,))
    answer = client.classify(sample, options)
    (segment,) = answer.segments
    assert (segment.start_ns, segment.end_ns) == range_ns
    assert segment.labels == answer.labels
    found = {label.name: label.score for label in answer.labels}
    np.testing.assert_allclose([found[name] for name in entry.spec.labels], expected, atol=1e-4)


def test_each_range_is_one_segment(client: Client) -> None:
    second = partial(int.__mul__, NS_PER_S)
    ranges = ((0, second(2)), (second(3), second(9)))
    answer = client.classify(panning_clip(6.0), Options(windowing=Views(clips=4, crops=3), ranges_ns=ranges))
    assert [(each.start_ns, each.end_ns) for each in answer.segments] == [ranges[0], (second(3), second(6))]
    assert {each.labels[0].name for each in answer.segments} == {"pan_right"}


def test_impossible_views_are_refused(client: Client) -> None:
    with pytest.raises(ServerError) as refused:
        client.classify(panning_clip(1.0), Options(windowing=Views(clips=31)))
    assert (refused.value.code, refused.value.reason) == ("INVALID_ARGUMENT", "MALFORMED_OPTION")
    assert {"limit": "1..30", "value": "31"}.items() <= refused.value.metadata.items()
