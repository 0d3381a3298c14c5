"""What many tests share: one server, the sample clip, and the real clips where they are."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, settings

from tests.support.running_server import Served, serving
from tests.support.videos import VIDEOS, render
from tubelet.service.client import Client
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

# A machine may be slow: no example has a deadline, and none is too slow to be made.
settings.register_profile(
    "any-speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-speed")

# A background job of a shell ignores Ctrl-C, and so would all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models that the user of this machine imported are none of the tests' business."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUBELET_MODELS__STORE", str(store))
        yield store


@pytest.fixture(scope="session")
def videos() -> Path:
    """The folder of real clips that lies beside the repository, on the project's own machines."""
    if not VIDEOS.is_dir():
        pytest.skip(f"no real clips at {VIDEOS}")
    return VIDEOS


@pytest.fixture(scope="session")
def sample() -> bytes:
    """The clip of ``tubelet demo``: 480x270, 25 fps, 14 s."""
    return SAMPLE_CLIP.read_bytes()


@pytest.fixture(scope="module")  # not longer: tests of the decode pool count the workers of this process
def served() -> Iterator[Served]:
    with serving(upload={"max_bytes": 40_000_000}) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.target) as client:
        yield client


@pytest.fixture
def stub(served: Served) -> Iterator[VideoClassifierStub]:
    with grpc.insecure_channel(served.target) as channel:
        yield VideoClassifierStub(channel)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 numbered frames, 20 s."""
    return render(tmp_path_factory.mktemp("clips") / "clip.mp4", 200)


@pytest.fixture
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.fixture
def signals() -> Iterator[None]:
    """Put the handlers of signals back, which an interrupted command or server leaves."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
