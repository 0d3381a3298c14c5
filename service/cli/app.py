"""The command line. No logic: every command gathers what it needs and prints what comes."""

import asyncio
import importlib.metadata
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tubelet.service.cli.classify.command import classify
from tubelet.service.cli.errors import told
from tubelet.service.cli.help import Commands, examples
from tubelet.service.cli.options import (
    Clips,
    ConfigFile,
    Crops,
    Json,
    ModelName,
    ModelOption,
    ModelVersion,
    ServerAddress,
    model_ref,
    seconds_in_range,
    views,
)
from tubelet.service.config.config import load_config

app = Commands()
models_app = Commands(help="The models that can answer.")
app.add_typer(models_app, name="models")


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
    from tubelet.service.server import process
    from tubelet.service.server.app import RunningServer
    from tubelet.service.server.listening import listed

    server = _server_flags(host, port, metrics_port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ready(running: RunningServer) -> None:
        where = f"gRPC on port {running.port}, metrics on port {running.metrics_port}"
        typer.echo(f"ready: {where} of {listed(running.addresses)}")

    with told():
        read = partial(load_config, config, server=server)
        process.serve(read(), ready, read)


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
    from tubelet.service.cli.config_report import print_config

    with told(as_json=as_json):
        print_config(config, {"server": _server_flags(host, port, metrics_port)}, as_json=as_json)


app.command(
    epilog=examples(
        "tubelet classify clip.mp4",
        "tubelet classify -r clips --server localhost --out results.jsonl",
    )
)(classify)


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
    from tubelet.service.cli.evaluation.evaluate import evaluate as measure
    from tubelet.service.types.request import Options, Sliding

    wanted = model_ref(model, version)
    options = Options(wanted.name, wanted.version, windowing=views(clips, crops) or Sliding())
    with told(as_json=as_json):
        asyncio.run(measure(data, options, out, server, load_config(config), as_json=as_json))


@models_app.command(
    "list", epilog=examples("tubelet models list", "tubelet models list --server localhost:8500 --json")
)
def list_models(server: ServerAddress = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """The models of a server, or of this installation."""
    from tubelet.service.cli.models.listing import print_models

    with told(as_json=as_json):
        asyncio.run(print_models(server, load_config(config), as_json=as_json))


@models_app.command(
    "import",
    epilog=examples(
        "tubelet models import hf:MCG-NJU/videomae-base-finetuned-kinetics",
        "tubelet models import torchvision:r3d_18 --weights mine.pth --labels mine.txt",
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
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With torchvision:NAME: the state dict of a fine-tuned model."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="softmax, or sigmoid: each label has a score of its own. Without it: what the config says.",
        ),
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
            callback=seconds_in_range,
            metavar="SECONDS",
            help="How much time a window spans. Without it: what the checkpoint says, or the family.",
        ),
    ] = None,
    inflate_to: Annotated[
        str | None,
        typer.Option("--inflate-to", metavar="factorised", help="Start a video model with an image ViT."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --inflate-to: frames of a window; default 32."),
    ] = None,
    tubelet: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --inflate-to: frames of a tubelet; default 2."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite that version.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Bring somebody else's checkpoint into the store, with its labels and preprocessing."""
    from tubelet.service.cli.models.commands import import_model as bring

    if activation not in (None, "softmax", "sigmoid"):
        raise typer.BadParameter(f"--activation takes softmax or sigmoid, not {activation!r}")
    if inflate_to not in (None, "factorised"):
        raise typer.BadParameter(f"--inflate-to takes 'factorised', not {inflate_to!r}")
    if inflate_to is None and (frames, tubelet) != (None, None):
        raise typer.BadParameter("--frames and --tubelet go with --inflate-to factorised")
    with told(as_json=as_json):
        bring(
            source,
            load_config(config),
            name=name,
            version=version,
            labels=labels,
            weights=weights,
            activation=activation,
            licence=licence,
            description=description,
            window_s=window,
            inflated=None if inflate_to is None else (frames or 32, tubelet or 2),
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
    from tubelet.service.cli.models.commands import verify_model as verify

    with told(as_json=as_json):
        same = verify(model_ref(name, version), load_config(config), as_json=as_json)
    raise typer.Exit(0 if same else 1)


@models_app.command(
    "show", epilog=examples("tubelet models show camera-motion", "tubelet models show camera-motion --json")
)
def show_model(
    name: ModelName, version: ModelVersion = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """All that is known of a model of this installation."""
    from tubelet.service.cli.models.commands import show_model as show

    with told(as_json=as_json):
        show(model_ref(name, version), load_config(config), as_json=as_json)


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
    from tubelet.service.cli.models.commands import remove_model as remove

    model = model_ref(name, "")
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
    from tubelet.service.cli.demo import demo as show

    server = {"host": "127.0.0.1", "port": 0, "metrics_port": 0}
    with told():
        asyncio.run(show(video, load_config(server=server), console))


def _server_flags(host: str | None, port: int | None, metrics_port: int | None) -> dict[str, str | int]:
    """The keys of the configuration's ``server`` table that flags set."""
    flags = {"host": host, "port": port, "metrics_port": metrics_port}
    return {key: value for key, value in flags.items() if value is not None}
