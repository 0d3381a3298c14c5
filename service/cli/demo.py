"""``tubelet demo``: a real server, the real client, a real video, and some of the server's metrics."""

import asyncio
import urllib.request
from contextlib import AsyncExitStack
from importlib.resources import as_file
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from rich.console import Console

from tubelet.service.cli.output import labels_text, metadata_text, segment_text, stages_text
from tubelet.service.cli.pages.answer_pages import AnswerPages, PageOptions
from tubelet.service.cli.runs.output_paths import check_paths
from tubelet.service.cli.runs.runner import open_remote
from tubelet.service.cli.runs.video_sources import Source
from tubelet.service.config.config import Config
from tubelet.service.server.app import SAMPLE_CLIP, open_server
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Event, Progress, Segment
from tubelet.service.types.uri import is_uri
from tubelet.service.types.video import MAX_THUMBNAILS, STAGES, VideoMetadata

_SHOWN_SERIES = (
    "tubelet_requests_total",
    "tubelet_stage_seconds_sum",
    "tubelet_batch_units_count",
    "tubelet_batch_units_sum",
    "tubelet_frames_decoded_total",
    "tubelet_video_seconds_total",
)

_NEXT = """
Next:
  tubelet serve                                  start a server: gRPC on port 8500, metrics on port 8502
  tubelet classify VIDEO... --server localhost   classify your videos through it
  tubelet models list                            list the models
  tubelet --help                                 list all commands"""


async def run_demo(video: str | None, config: Config, console: Console, html: Path | None) -> None:
    """Start a server, upload ``video`` (None: a sample clip), print its labels and some metrics.

    ``html`` is the path of a page of the answer.

    Raises:
        tubelet.service.client.ServerError, OSError: the video cannot be classified or read, or its page not
            written.
    """
    if video is not None:
        _check(video)
    if html is not None:
        check_paths(PageOptions(html).single_files)
    async with AsyncExitStack() as stack:
        clip = video or stack.enter_context(as_file(SAMPLE_CLIP))
        with console.status("loading models, starting decode workers, warming up"):
            server = await stack.enter_async_context(open_server(config))
        console.print(
            f"A server is ready: gRPC on port {server.port}, metrics on port {server.metrics_port}."
        )
        classify_video = await stack.enter_async_context(open_remote(f"127.0.0.1:{server.port}", tls=False))

        async def show(event: Event) -> None:
            """Print the metadata and the segments of the video."""
            match event:
                case VideoMetadata():
                    console.print(metadata_text(event))
                case Segment():
                    console.print(segment_text(event))
                case Progress():
                    pass

        console.print(f"\nUploading {clip} through the Python client; segments as they arrive:")
        options = Options(top_k=3, thumbnails=0 if html is None else MAX_THUMBNAILS)
        answer = await classify_video(str(clip), options, show)
        console.print(f"  {'whole video':21}  {labels_text(answer.labels)}")
        for warning in answer.warnings:
            console.print(f"  warning: {warning}")
        console.print(f"Answered by {answer.model} {answer.version}; {stages_text(answer)}")
        console.print(f"\nSome of the metrics at http://127.0.0.1:{server.metrics_port}/metrics:")
        for line in await asyncio.to_thread(_scrape, server.metrics_port):
            console.print(f"  {line}", markup=False)
        if html is not None:
            await _write_page(html, str(clip), answer, config, console)
            console.print(f"\nThe page of the answer is {html}: open it in a browser.", markup=False)
        console.print(_NEXT, markup=False)


async def _write_page(
    path: Path, clip: str, answer: Classification, config: Config, console: Console
) -> None:
    """Write the page of the answer.

    Raises:
        OSError: it cannot be written.
    """
    source, problems = Source(clip), list[str]()
    async with AnswerPages(
        PageOptions(path), [source], config.decode, problems.append, console.print
    ) as pages:
        await pages.add(source, answer)
    if problems:
        raise OSError("; ".join(problems))


def _check(video: str) -> None:
    """Check that the file can be read, before a server is started for it."""
    if is_uri(video):
        raise OSError(f"the demo uploads a file; {video} is a URI")
    try:
        Path(video).open("rb").close()
    except OSError as error:
        raise OSError(f"cannot read {video}: {error.strerror}") from error


def _scrape(metrics_port: int) -> list[str]:
    """Read the metrics page and return the lines of a few series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    shown = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in sorted(family.samples, key=_stage_number)
        if sample.name in _SHOWN_SERIES
    ]
    return [f"{sample.name}{_labels_suffix(sample.labels)} {sample.value:g}" for sample in shown]


def _stage_number(sample: Sample) -> int:
    """Return the position of the sample's stage, to sort by; 0 if it has no stage."""
    return STAGES.index(sample.labels["stage"]) if "stage" in sample.labels else 0


def _labels_suffix(labels: dict[str, str]) -> str:
    """Format labels as Prometheus writes them after a name."""
    return f"{{{','.join(f'{key}={value!r}' for key, value in labels.items())}}}" if labels else ""
