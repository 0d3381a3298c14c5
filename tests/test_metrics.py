"""The metrics of a server: they count requests and their work by model, and no warm-up."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.energy import rapl_counters
from tests.support.listening import needs_ipv6
from tests.support.running_server import Served, serving, sum_of_samples, wait_until
from tests.support.sample_clip import panning_clip
from tests.support.videos import assert_decodes_correctly
from tubelet.models.costs import energy_counters
from tubelet.service.client import Client, ServerError
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.metrics import Metrics
from tubelet.service.process_memory import read_memory

_COUNT = ("_total", "_count", "_sum", "_bucket")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Served]:
    """A server that has answered no request before the first test of this module."""
    with serving(server={"host": "::"}) as served:
        yield served


def counts(served: Served) -> dict[str, float]:
    """The sum of each of our counters and histograms, of all its series."""
    url = f"http://127.0.0.1:{served.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    return {
        family.name: sum(sample.value for sample in family.samples if sample.name.endswith(_COUNT))
        for family in families
        if family.name.startswith("tubelet_") and family.type in ("counter", "histogram")
    }


def test_warm_up_counts_in_no_metric(fresh: Served) -> None:
    counted = counts(fresh)
    assert {
        "tubelet_stage_seconds",
        "tubelet_engine_busy_seconds",
        "tubelet_unit_cache_lookups",
    } < counted.keys()
    assert "tubelet_decoder_busy_seconds" in counted
    assert {name: count for name, count in counted.items() if count} == {}


def test_stages_and_frames_are_counted_by_model(fresh: Served) -> None:
    model = {"model": "camera-motion"}
    with Client(fresh.target) as client:
        client.classify(panning_clip(2.0))
    for stage in ("upload", "probe", "decode", "total"):
        assert fresh.metric("tubelet_stage_seconds_count", stage=stage, **model) == 1
    for stage in ("queue", "encode", "classify"):
        assert fresh.metric("tubelet_stage_seconds_count", stage=stage, **model) >= 1
    assert fresh.metric("tubelet_stage_seconds_count") == fresh.metric("tubelet_stage_seconds_count", **model)
    assert fresh.metric("tubelet_frames_decoded_total", **model) > 0
    assert counts(fresh)["tubelet_decoder_busy_seconds"] > 0


def test_failures_are_counted_by_reason_and_model(fresh: Served) -> None:
    with Client(fresh.target) as client, pytest.raises(ServerError):
        client.classify(b"not a video")
    assert fresh.metric("tubelet_failed_requests_total", reason="NOT_A_VIDEO", model="camera-motion") == 1


def test_unknown_model_names_never_become_labels(fresh: Served) -> None:
    with grpc.insecure_channel(fresh.target) as channel:
        call = channel.stream_unary("/tubelet.v1.VideoClassifier/Classify")
        with pytest.raises(grpc.RpcError):
            call(iter([b"\n\x07\n\x05weird"]))  # options whose model is "weird"
    wait_until(fresh, "tubelet_requests_total", 1, model="", method="Classify")  # after the answer
    assert fresh.metric("tubelet_requests_total", model="weird") == 0


@needs_ipv6
@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_grpc_and_http_answer_at_the_same_addresses(fresh: Served, address: str) -> None:
    with grpc.insecure_channel(f"{address}:{fresh.server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    with urllib.request.urlopen(f"http://{address}:{fresh.server.metrics_port}/readyz", timeout=60) as page:
        assert page.status == 200


def test_decoder_memory_is_that_of_its_processes(fresh: Served) -> None:
    memory = fresh.metric("tubelet_decoder_memory_bytes")
    processes = psutil.Process().children(recursive=True)
    used = [process.memory_full_info() for process in processes]
    assert len(used) > 1
    assert 0.8 * sum(each.uss for each in used) < memory < sum(each.rss for each in used)


async def test_pool_has_its_workers_and_the_fork_server_as_processes() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    pool = DecodePool(DecodeConfig(workers=2))
    assert pool.process_ids == ()
    async with pool:
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        assert set(pool.process_ids) == children - before
        assert len(pool.process_ids) == 3


async def test_busy_time_of_workers_can_be_reset(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        await assert_decodes_correctly(pool, clip)
        await pool.reset_busy_time()
        assert pool.busy_s == 0
        await assert_decodes_correctly(pool, clip)
        assert pool.busy_s > 0


def test_ended_processes_have_no_memory() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is all there
        alive = read_memory([process.pid])
        assert alive.measure == "pss"
        assert alive.total_bytes > 1 << 20
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_memory([process.pid]).total_bytes == 0  # it is a zombie
    assert read_memory([process.pid, os.getpid()]).total_bytes > 0


def test_memory_is_rss_where_pss_cannot_be_read(tmp_path: Path) -> None:
    """A process of another user refuses its PSS."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    script = (
        "import os, sys; sys.path.insert(0, '.'); from tubelet.service.process_memory import read_memory; "
        "os.setuid(65534); print(read_memory([os.getppid()]).measure)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "rss\n"


def test_energy_is_counted_from_the_counters_of_the_kernel(tmp_path: Path) -> None:
    metrics = Metrics()
    with rapl_counters(tmp_path) as root:
        counters = energy_counters()
        assert counters is not None
        metrics.watch_energy(counters.read)
        (root / "intel-rapl:0" / "energy_uj").write_text("6500000\n")
        page = generate_latest(metrics.registry).decode()
    assert sum_of_samples(page, "tubelet_energy_joules_total", {"device": "cpu:0"}) == 1.5
    assert sum_of_samples(page, "tubelet_energy_joules_total", {}) == 1.5


def test_no_energy_is_shown_where_none_is_measured(fresh: Served) -> None:
    assert ("tubelet_energy_joules" in counts(fresh)) == (energy_counters() is not None)


@pytest.mark.slow
def test_a_server_counts_energy_where_it_is_measured(tmp_path: Path) -> None:
    with rapl_counters(tmp_path) as root, serving() as served:
        assert served.metric("tubelet_energy_joules_total", device="cpu:0") == 0
        (root / "intel-rapl:0" / "energy_uj").write_text("6500000\n")
        assert served.metric("tubelet_energy_joules_total", device="cpu:0") == 1.5
