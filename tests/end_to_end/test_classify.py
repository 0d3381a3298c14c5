"""End to end over a real channel: answers for valid videos."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import seccompy
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip
from tubelet.models.repository.repository import ModelStore
from tubelet.service.client import Client, ServerError
from tubelet.service.types.request import Options, Sliding, WholeVideo
from tubelet.service.types.result import Classification, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

LABELS = "static pan_left pan_right tilt_up tilt_down zoom_in zoom_out roll_cw roll_ccw shake"


def at(answer: Classification, second: float) -> str:
    """Return the label of the segment at ``second``."""
    (found,) = (
        segment.labels[0].name
        for segment in answer.segments
        if segment.start_ns <= second * NS_PER_S < segment.end_ns
    )
    return found


def scores(answer: Classification) -> np.ndarray:
    """Return scores in the order of label names: a row for each segment and one for the whole video."""
    rows = [segment.labels for segment in answer.segments] + [answer.labels]
    return np.array([[label.score for label in sorted(row, key=lambda label: label.name)] for row in rows])


def test_sample_clip_gets_its_true_labels(client: Client, sample: bytes) -> None:
    """The clip was drawn so: still, pan right, zoom in, tilt up, roll clockwise, still."""
    answer = client.classify(sample)
    story = {0.5: "static", 3.5: "pan_right", 6.5: "zoom_in", 9.5: "tilt_up", 12.5: "roll_cw", 15.5: "static"}
    assert {second: at(answer, second) for second in story} == story


def test_an_answer_holds_metadata_segments_and_times(client: Client, sample: bytes) -> None:
    answer = client.classify(sample, Options(top_k=4))
    assert answer.metadata == VideoMetadata(
        "mov,mp4,m4a,3gp,3g2,mj2",
        "h264",
        480,
        270,
        25.0,
        400,
        16 * NS_PER_S,
        len(sample),
        pixel_format="yuv420p",
        shown_as_stored=True,
    )
    model = client.model("camera-motion")
    assert (answer.model, answer.version) == ("camera-motion", model.version)
    assert answer.fingerprint == model.fingerprint == ModelStore().find("camera-motion").fingerprint
    assert [segment.start_ns for segment in answer.segments] == [second * NS_PER_S for second in range(16)]
    assert answer.segments[-1].end_ns == 16 * NS_PER_S
    assert all(len(segment.labels) == 4 for segment in answer.segments)
    assert set(answer.stage_seconds) == {"upload", "probe", "decode", "queue", "encode", "classify", "total"}
    seconds = client.classify(panning_clip(2.7)).stage_seconds  # the sample's units are known by now
    assert 0 < seconds["encode"] < seconds["total"]
    assert answer.warnings == ()


def test_streaming_gives_metadata_then_segments_then_the_same_answer(client: Client, sample: bytes) -> None:
    events = list(client.stream(sample))
    segments = [event for event in events if isinstance(event, Segment)]
    answer = events[-1]
    assert isinstance(events[0], VideoMetadata)
    assert isinstance(answer, Classification)
    assert answer.segments == tuple(segments)
    np.testing.assert_allclose(scores(answer), scores(client.classify(sample)), atol=1e-4)


def test_answers_in_a_full_server_equal_those_alone(sample: bytes) -> None:
    """Units of many videos share batches, and no answer changes."""
    clips = [sample, *(panning_clip(seconds) for seconds in (1.2, 2.0, 3.3))]
    options = Options(top_k=10)
    with serving(engine={"cache_bytes": 0}) as served, Client(served.target) as client:
        alone = [client.classify(clip, options) for clip in clips]
        with ThreadPoolExecutor(8) as threads:
            crowd = list(threads.map(lambda clip: client.classify(clip, options), clips * 2))
    for single, other in zip(alone * 2, crowd, strict=True):
        np.testing.assert_allclose(scores(single), scores(other), atol=1e-4)


def test_chunks_may_be_cut_anywhere(client: Client) -> None:
    clip = panning_clip(2.0)

    class Trickle(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 777))

    options = Options(top_k=10)
    np.testing.assert_allclose(
        scores(client.classify(Trickle(clip), options)), scores(client.classify(clip, options)), atol=1e-4
    )


def test_options_choose_windows_ranges_and_labels(client: Client, sample: bytes) -> None:
    whole = client.classify(sample, Options(windowing=WholeVideo(), top_k=1))
    assert [(segment.start_ns, segment.end_ns) for segment in whole.segments] == [(0, 16 * NS_PER_S)]
    assert whole.labels == whole.segments[0].labels

    ranges = ((3 * NS_PER_S, 5 * NS_PER_S), (12 * NS_PER_S, 99 * NS_PER_S))
    some = client.classify(sample, Options(ranges_ns=ranges, windowing=Sliding(NS_PER_S, NS_PER_S)))
    assert [segment.start_ns // NS_PER_S for segment in some.segments] == [3, 4, 12, 13, 14, 15]
    assert at(some, 3.5) == "pan_right"
    assert at(some, 12.5) == "roll_cw"

    sure = client.classify(sample, Options(score_threshold=0.9))
    assert all(label.score >= 0.9 for segment in sure.segments for label in segment.labels)


def test_a_range_gets_the_labels_that_the_whole_video_gets_there(client: Client, sample: bytes) -> None:
    """Seeking into the video gives exactly the same frames."""
    options = Options(top_k=10, windowing=Sliding(2 * NS_PER_S, 2 * NS_PER_S))
    whole = scores(client.classify(sample, options))
    part = Options(top_k=10, windowing=options.windowing, ranges_ns=((6 * NS_PER_S, 10 * NS_PER_S),))
    np.testing.assert_allclose(scores(client.classify(sample, part))[:2], whole[3:5], atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "frames", "size", "label"),
    [
        pytest.param(lambda: panning_clip(0.6), 15, (320, 240), "pan_right", id="shorter than a window"),
        pytest.param(lambda: panning_clip(0.04), 1, (320, 240), "static", id="one frame"),
        pytest.param(
            lambda: panning_clip(2.0, (160, 120), container="gif", codec="gif"),
            50,
            (160, 120),
            "pan_right",
            id="gif",
        ),
        pytest.param(lambda: panning_clip(2.0, (240, 426)), 50, (240, 426), "pan_right", id="portrait"),
        pytest.param(lambda: panning_clip(2.0, container="matroska"), 50, (320, 240), "pan_right", id="mkv"),
        pytest.param(lambda: panning_clip(2.0, container="mpegts"), 50, (320, 240), "pan_right", id="mpegts"),
    ],
)
def test_unusual_videos_are_classified(
    client: Client, clip, frames: int, size: tuple[int, int], label: str
) -> None:
    answer = client.classify(clip())
    assert (answer.metadata.frames, (answer.metadata.width, answer.metadata.height)) == (frames, size)
    assert answer.labels[0].name == label
    assert answer.segments[-1].end_ns == answer.metadata.duration_ns


def test_models_are_listed_and_described(client: Client) -> None:
    models = client.models()
    assert models[0].is_default
    model = client.model("camera-motion")
    assert model == models[0]
    assert " ".join(model.labels) == LABELS
    assert model.family == "factorised"
    assert (model.width, model.height) == (48, 48)
    assert model.sampling.window.ToSeconds() == 2
    assert model.licence
    assert all(0 < figure.top1 <= 1 for figure in model.accuracy)
    assert model.accuracy
    assert model.dtype


def test_embedded_models_are_loaded_only_if_named(client: Client) -> None:
    assert [model.name for model in client.models()] == ["camera-motion"]
    others = client.models_not_loaded()
    assert {model.family for model in others} == {"vit", "channel_stack"}
    assert [(model.device, model.dtype, model.is_default) for model in others] == [("", "", False)] * 2
    for name in ("camera-motion-stack", "camera-motion-stack:1.0.0"):
        for ask in (
            partial(client.model, name),
            partial(client.classify, panning_clip(1.0), Options(model=name)),
        ):
            with pytest.raises(ServerError) as caught:
                ask()
            assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "UNKNOWN_MODEL")
            assert f"model '{name}' is installed but not loaded" in caught.value.message
            assert "models.load chooses the loaded models: camera-motion:" in caught.value.message


def test_every_embedded_model_answers_where_it_is_loaded() -> None:
    clip = panning_clip(3.0)
    names = ("camera-motion", "camera-motion-frame", "camera-motion-stack")
    with serving(models={"load": names}) as served, Client(served.target) as client:
        models = client.models()
        assert {model.name for model in models} == set(names)
        assert client.models_not_loaded() == ()
        for model in models:
            for named in (Options(model=model.name), Options(model=f"{model.name}:{model.version}")):
                answer = client.classify(clip, named)
                assert (answer.model, answer.version) == (model.name, model.version)
                assert answer.segments[-1].end_ns == answer.metadata.duration_ns


def test_health_and_reflection(served: Served) -> None:
    with grpc.insecure_channel(served.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tubelet.v1.VideoClassifier"):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "tubelet.v1.VideoClassifier" in database.get_services()
        file = database.FindFileContainingSymbol("tubelet.v1.VideoClassifier")
        methods = {method.name for method in file.service[0].method}
        assert methods == {"Classify", "ClassifyStreaming", "Explain", "ListModels", "GetModel"}


def test_metrics_count_what_happened(served: Served, client: Client) -> None:
    def seen() -> dict[str, float]:
        return {
            "requests": served.metric(
                "tubelet_requests_total", method="Classify", model="camera-motion", code="OK"
            ),
            "totals": served.metric("tubelet_stage_seconds_count", stage="total"),
            "frames": served.metric("tubelet_frames_decoded_total"),
            "seconds": served.metric("tubelet_video_seconds_total"),
            "units": served.metric("tubelet_batch_units_sum", model="camera-motion"),
            "windows": served.metric("tubelet_batch_windows_sum", model="camera-motion"),
        }

    clip = panning_clip(4.0)
    before = seen()
    client.classify(clip)
    after = seen()
    grown = {key: round(after[key] - before[key], 3) for key in before}
    # 4 s are 8 units of 4 frames and 3 windows of 2 s; the clip has 100 frames, of which all may be needed.
    assert 32 <= grown.pop("frames") <= 100
    assert grown == {
        "requests": 1,
        "totals": 1,
        "seconds": 4,
        "units": 8,
        "windows": 3,
    }
    assert served.metric("tubelet_decoder_sandbox", protection="rlimits") == 1
    assert served.metric("tubelet_decoder_sandbox", protection="seccomp") == seccompy.supported()
    assert served.metric("tubelet_ready") == 1
    assert served.metric("tubelet_videos_in_flight") == 0
    assert served.metric("tubelet_model_info", model="camera-motion", device="cpu") == 1
    assert served.metric("process_resident_memory_bytes") > 0


def test_real_clips_are_classified(client: Client, videos: Path) -> None:
    clips = sorted((videos / "real").glob("*.*"))[:6]
    assert clips
    for clip in clips:
        answer = client.classify(clip)
        assert answer.segments
        assert answer.segments[-1].end_ns == answer.metadata.duration_ns
