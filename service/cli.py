"""The command line. No logic: every command gathers what it needs and prints what comes."""

import asyncio
import importlib.metadata
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from service.config import load_config
from service.help import Commands, examples
from service.model_ref import ModelRef
from service.target import parse_target
from service.told import told

if TYPE_CHECKING:
    from service.values import Views

app = Commands()
models_app = Commands(help="The models that can answer.")
app.add_typer(models_app, name="models")


def _target(server: str | None) -> str | None:
    try:
        return None if server is None else parse_target(server)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file; see the README.")
]
ServerAddress = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST[:PORT]",
        callback=_target,
        help="A server's address; port 8500 if none is named. Without it, this process answers.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option("--host", metavar="HOST", help="Address or name to listen at; '::' is all, IPv6 and IPv4."),
]
Port = Annotated[int | None, typer.Option("--port", metavar="PORT", help="gRPC port; 0 picks a free one.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        help="HTTP port of /metrics, /healthz and /readyz; 0 picks a free one.",
    ),
]
ModelName = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A model, the newest version if none.")
]
ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="NAME[:VERSION]", help="A model and its version; empty: the default."),
]
ModelVersion = Annotated[
    str, typer.Option("--version", metavar="VERSION", help="The model's version, as in NAME:VERSION.")
]
Clips = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Views: windows spread evenly over the video, averaged."),
]
Crops = Annotated[
    int | None,
    typer.Option(metavar="1|3", help="Views: crops of each, 1 (centre) or 3 (along the longer side)."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; errors, too.")]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"tubelet {importlib.metadata.version('tubelet')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Class labels for videos and their time segments."""
    if context.invoked_subcommand != "serve":  # whose log is the place for what gRPC says
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # A container's user may have no home. Some libraries fail then, others make a folder that is called ~.
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = "/nonexistent"


_MOST_S = 1e9  # some thirty years; in nanoseconds, far more has no room in 64 bits


def _seconds(number: float | None) -> float | None:
    """Refuse NaN and what is as good as infinite, which ``float`` reads, too."""
    if number is not None and not abs(number) <= _MOST_S:
        raise typer.BadParameter(f"wants seconds, at most {_MOST_S:,.0f} of them; found {number:g}")
    return number


@app.command(epilog=examples("tubelet serve", "tubelet serve --config tubelet.toml --port 8500"))
def serve(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Answer gRPC calls until SIGTERM or Ctrl-C, then drain; a second one ends at once."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the models are about to be read
    # Imports take seconds, in which a container's first process would not hear it: by default it is deaf.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    from service import signals
    from service.listening import listed
    from service.server import RunningServer

    server = _server_flags(host, port, metrics_port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ready(running: RunningServer) -> None:
        where = f"gRPC on port {running.port}, metrics on port {running.metrics_port}"
        typer.echo(f"ready: {where} of {listed(running.addresses)}")

    with told():
        read = partial(load_config, config, server=server)
        signals.serve(read(), ready, read)


@app.command(
    "config",
    epilog=examples("tubelet config", "tubelet config --config tubelet.toml --json"),
)
def show_config(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Print the configuration that serve would have, as TOML, and where each value comes from."""
    from service.config_report import print_config

    with told(as_json=as_json):
        print_config(config, {"server": _server_flags(host, port, metrics_port)}, as_json=as_json)


@app.command(
    epilog=examples("tubelet classify clip.mp4", "tubelet classify clips/*.mp4 --server localhost --json")
)
def classify(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO", help="Video files, or URIs that fetch.allow covers.")
    ],
    server: ServerAddress = None,
    config: ConfigFile = None,
    as_json: Json = False,
    model: ModelOption = "",
    version: ModelVersion = "",
    top_k: Annotated[int, typer.Option(min=1, metavar="N", help="Labels shown, best first.")] = 3,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, metavar="SCORE", help="Hide labels that score less.")
    ] = 0.0,
    whole_video: Annotated[bool, typer.Option("--whole-video", help="One segment: the whole video.")] = False,
    window: Annotated[
        float | None,
        typer.Option(
            callback=_seconds,
            metavar="SECONDS",
            help="How much of the video one prediction sees. Without it: as much as the model was made for.",
        ),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            callback=_seconds,
            metavar="SECONDS",
            help="How far a window starts after the one before it, rounded to whole units of the model.",
        ),
    ] = None,
    clips: Clips = None,
    crops: Crops = None,
    time_range: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="START-END", help="Only this part, in seconds; may be repeated."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Key frames near the wanted ones will do.")] = False,
    priority: Annotated[
        Literal["low", "normal", "high"],
        typer.Option(metavar="low|normal|high", help="Whose videos go first on a busy server."),
    ] = "normal",
) -> None:
    """Classify videos; exit status 1 when one failed, the others are classified all the same."""
    from service.commands import classify_all
    from service.values import Options, Priority, Sliding, WholeVideo

    views = _views(clips, crops)
    asked = (whole_video, window is not None or stride is not None, views is not None)
    if sum(asked) > 1:
        raise typer.BadParameter("--whole-video, --window with --stride, --clips with --crops: one of these")
    sliding = WholeVideo() if whole_video else Sliding(_ns(window), _ns(stride))
    wanted = _model(model, version)
    options = Options(
        model=wanted.name,
        version=wanted.version,
        top_k=top_k,
        score_threshold=threshold,
        windowing=views or sliding,
        ranges_ns=tuple(_range(text) for text in time_range or ()),
        fast=fast,
        priority=Priority(priority),
    )
    with told(as_json=as_json):
        failed = asyncio.run(classify_all(videos, options, server, load_config(config), as_json=as_json))
    raise typer.Exit(1 if failed else 0)


@app.command(
    epilog=examples(
        "tubelet evaluate kinetics/val --model NAME --clips 10 --crops 3",
        "tubelet evaluate val.csv --server localhost:8500 --out evaluation",
    )
)
def evaluate(
    data: Annotated[Path, typer.Argument(help="A folder of class folders, or a list of paths and labels.")],
    model: ModelOption = "",
    version: ModelVersion = "",
    clips: Clips = None,
    crops: Crops = None,
    server: ServerAddress = None,
    config: ConfigFile = None,
    as_json: Json = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keeps answers and report; default: evaluation-NAME-VERSION."),
    ] = None,
) -> None:
    """Measure a model on labelled videos; run again, it resumes. Exit status 1 when none was classified."""
    from service.evaluate import evaluate as measure
    from service.values import Options, Sliding

    wanted = _model(model, version)
    options = Options(wanted.name, wanted.version, windowing=_views(clips, crops) or Sliding())
    with told(as_json=as_json):
        asyncio.run(measure(data, options, out, server, load_config(config), as_json=as_json))


@models_app.command(
    "list", epilog=examples("tubelet models list", "tubelet models list --server localhost:8500 --json")
)
def list_models(server: ServerAddress = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """The models of a server, or of this installation."""
    from service.models_list import print_models

    with told(as_json=as_json):
        asyncio.run(print_models(server, load_config(config), as_json=as_json))


@models_app.command(
    "import",
    epilog=examples(
        "tubelet models import hf:MCG-NJU/videomae-base-finetuned-kinetics",
        "tubelet models import ./vit.pth --labels labels.txt --name mine",
    ),
)
def import_model(
    source: Annotated[
        str,
        typer.Argument(help=r"hf:ORG/NAME\[@REVISION], torchvision:NAME[:WEIGHTS], a folder or a file."),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in the store. Without it: the source's.")
    ] = None,
    version: Annotated[str, typer.Option(metavar="VERSION", help="Its version in the store.")] = "1",
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with one label a line, or imagenet-1k or kinetics-400."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its licence. Without it: the source's, or unknown.")
    ] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What it is. Without it: what the source says.")
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            callback=_seconds,
            metavar="SECONDS",
            help="How much time a window spans. Without it: what the checkpoint says, or the family.",
        ),
    ] = None,
    become: Annotated[
        str | None, typer.Option("--as", metavar="factorised", help="Start a video model with an image ViT.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --as: frames of a window; 32 unless named.")
    ] = None,
    tubelet: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --as: frames of a tubelet; 2 unless named.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite that version.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Bring somebody else's checkpoint into the store, with its labels and preprocessing."""
    from service.model_commands import import_model as bring

    if become not in (None, "factorised"):
        raise typer.BadParameter(f"--as takes 'factorised', not {become!r}")
    if become is None and (frames, tubelet) != (None, None):
        raise typer.BadParameter("--frames and --tubelet go with --as factorised")
    with told(as_json=as_json):
        bring(
            source,
            load_config(config),
            name=name,
            version=version,
            labels=labels,
            licence=licence,
            description=description,
            window_s=window,
            inflated=None if become is None else (frames or 32, tubelet or 2),
            overwrite=replace,
            as_json=as_json,
        )


@models_app.command(
    "verify", epilog=examples("tubelet models verify camera-motion", "tubelet models verify mine:2")
)
def verify_model(
    name: ModelName, version: ModelVersion = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """Compare a model's files and logits with what was written; exit status 1 if they differ."""
    from service.model_commands import verify_model as verify

    with told(as_json=as_json):
        same = verify(_model(name, version), load_config(config), as_json=as_json)
    raise typer.Exit(0 if same else 1)


@models_app.command(
    "show", epilog=examples("tubelet models show camera-motion", "tubelet models show camera-motion --json")
)
def show_model(
    name: ModelName, version: ModelVersion = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """All that is known of a model of this installation."""
    from service.model_commands import show_model as show

    with told(as_json=as_json):
        show(_model(name, version), load_config(config), as_json=as_json)


@models_app.command(
    "remove",
    epilog=examples("tubelet models remove mine:1", "tubelet models remove mine --all-versions --yes"),
)
def remove_model(
    name: Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="A model of the store.")],
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="All of them, if NAME has several.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without being asked.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Remove a version of a model from the store."""
    from service.model_commands import remove_model as remove

    model = _model(name, "")
    if all_versions and model.version:
        raise typer.BadParameter("--all-versions goes with a NAME without a version")
    with told(as_json=as_json):
        wanted = load_config(config)
        remove(model, wanted, all_versions=all_versions, is_confirmed=yes, as_json=as_json)


@app.command(epilog=examples("tubelet demo", "tubelet demo clip.mp4"))
def demo(
    video: Annotated[str | None, typer.Argument(help="A file; a short sample when none is named.")] = None,
) -> None:
    """Start a server on free ports, classify a video through it, show its metrics, stop."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Starting a server on free ports; to load libraries and models takes some seconds.")
    from service.demo import demo as show

    server = {"host": "127.0.0.1", "port": 0, "metrics_port": 0}
    with told():
        asyncio.run(show(video, load_config(server=server), console))


def _server_flags(host: str | None, port: int | None, metrics_port: int | None) -> dict[str, str | int]:
    """The keys of the configuration's ``server`` table that flags set."""
    flags = {"host": host, "port": port, "metrics_port": metrics_port}
    return {key: value for key, value in flags.items() if value is not None}


def _model(text: str, version: str) -> ModelRef:
    try:
        return ModelRef.parse(text, version)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _views(clips: int | None, crops: int | None) -> "Views | None":
    from service.values import Views

    return None if clips is None and crops is None else Views(clips or 1, 1 if crops is None else crops)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _range(text: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    try:
        seconds = float(start), float(end)
        if not dash or not all(abs(each) <= _MOST_S for each in seconds):
            raise ValueError
        return round(seconds[0] * 1e9), round(seconds[1] * 1e9)
    except ValueError:
        raise typer.BadParameter(
            f"--range wants START-END in seconds, such as 1.5-4; found {text!r}"
        ) from None
