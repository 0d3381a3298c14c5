"""Tests of the threads that batches on a CPU get."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tubelet.models.repository.repository import ModelStore
from tubelet.service.config.config import EngineConfig
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.model_loader import expand_cpu_cores
from tubelet.service.engine.model_runner import CpuThreads
from tubelet.service.metrics import Metrics


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _threads(cores: CpuThreads, parallel_batches: int) -> int:
    """Return the number of threads that a batch gets on a thread of its own."""
    found: list[int] = []

    def compute() -> None:
        with cores.share(parallel_batches):
            found.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    return found[0]


def test_one_large_unit_gets_all_threads_while_nothing_else_runs() -> None:
    cores = CpuThreads(4)
    assert _threads(cores, 1) == 4
    with cores.share(1):
        assert _threads(cores, 1) == 2
        with cores.share(1):
            assert _threads(cores, 1) == 1
    assert _threads(cores, 1) == 4


def test_batches_of_many_small_units_get_one_thread_each() -> None:
    assert [_threads(CpuThreads(4), units) for units in (2, 4, 16)] == [2, 1, 1]


def test_a_failed_batch_gives_its_threads_back() -> None:
    cores = CpuThreads(2)
    with pytest.raises(ZeroDivisionError), cores.share(1):
        raise ZeroDivisionError
    assert _threads(cores, 1) == 2


async def test_each_model_is_measured_with_the_threads_of_its_batches() -> None:
    """This holds also if the measuring thread has measured before."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    store = ModelStore()
    async with Engine(EngineConfig(device="cpu", threads=2), Metrics()) as engine:
        for _ in range(2):
            await engine.load(store, store.find("camera-motion").spec)
            assert await asyncio.to_thread(torch.get_num_threads) == 1


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [
        (["cpu"], ["cpu:0", "cpu:1", "cpu:2"]),
        (["cpu:0"], ["cpu:0"]),
        (["cuda:0", "cuda:1"], ["cuda:0", "cuda:1"]),
        (["cuda:0", "cpu"], ["cuda:0", "cpu:0", "cpu:1", "cpu:2"]),
    ],
)
def test_each_core_computes_batches_of_its_own(devices: list[str], wanted: list[str]) -> None:
    assert [str(each) for each in expand_cpu_cores([torch.device(name) for name in devices], 3)] == wanted
