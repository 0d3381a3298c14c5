"""The command line: declares the commands and their arguments, and calls the code that does the work."""

import asyncio
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from tubelet.service.cli.batch.command import batch
from tubelet.service.cli.classify.command import classify
from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.explain.command import explain
from tubelet.service.cli.help import Commands, examples
from tubelet.service.cli.models.app import models_app
from tubelet.service.cli.options import (
    Ca,
    Cert,
    Clips,
    ConfigFile,
    Crops,
    Json,
    Key,
    ModelOption,
    ModelVersion,
    ServerAddress,
    ServerName,
    TokenFile,
    TokenText,
    UseTls,
    check_exclusive,
    client_flags,
    model_ref,
    views,
)
from tubelet.service.cli.tokens import token_app
from tubelet.service.cli.train.command import train
from tubelet.service.config.config import load_config

logger = logging.getLogger(__name__)

app = Commands()
app.add_typer(models_app, name="models")
app.add_typer(token_app, name="token")


Host = Annotated[
    str | None,
    typer.Option(
        "--host", metavar="HOST", help="Address or name to listen at; '::' is every address, IPv6 and IPv4."
    ),
]
Port = Annotated[
    int | None, typer.Option("--port", metavar="PORT", help="Port for gRPC; 0 picks a free one.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        help="Port for HTTP: /metrics, /healthz and /readyz; 0 picks a free one.",
    ),
]


def _print_version(is_requested: bool) -> None:
    """Print the version and exit, if ``--version`` was given."""
    if is_requested:
        typer.echo(f"tubelet {importlib.metadata.version('tubelet')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Classify videos: labels for time segments and for whole videos."""
    if context.invoked_subcommand != "serve":  # serve has a log, where gRPC's own messages belong
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # A container's user may have no home. Then some libraries fail, and others create a folder called "~".
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = "/nonexistent"


@app.command(epilog=examples("tubelet serve", "tubelet serve --config tubelet.toml --port 8500"))
def serve(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a server until SIGTERM or Ctrl-C, then finish calls in flight. A second signal ends it at once."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the models are about to be read anyway
    # The imports take seconds, in which a container's first process would ignore SIGTERM by default.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    from tubelet.service.log.lines import start_logging
    from tubelet.service.log.standard_error import log_standard_error
    from tubelet.service.server.app import RunningServer
    from tubelet.service.server.listening import listed
    from tubelet.service.server.process import run_until_signal

    read = partial(load_config, config, server=_server_flags(host, port, metrics_port))

    def ready(running: RunningServer) -> None:
        """Print that the server is ready, and where it listens."""
        mtls = "" if running.mtls_port is None else f", mTLS on port {running.mtls_port}"
        ports = f"gRPC on port {running.port}{mtls}, metrics on port {running.metrics_port}"
        tls = "" if running.tls is None else ", with TLS"
        typer.echo(f"ready: {ports} of {listed(running.addresses)}{tls}")

    with report_errors():
        log = (found := read()).log
    with log_standard_error(log.format, log.level) as stream:
        start_logging(log.format, log.level, stream)
        with _logged_crash(), report_errors(say=logger.error):
            asyncio.run(run_until_signal(found, ready, read))


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
    """Print the configuration that serve would use, as TOML, and the origin of each value."""
    from tubelet.service.cli.config_report import print_config

    with report_errors(as_json=as_json):
        print_config(config, {"server": _server_flags(host, port, metrics_port)}, as_json=as_json)


app.command(
    epilog=examples(
        "tubelet batch videos --out rows",
        "tubelet batch list.parquet --out rows --resume --shard 0/4",
    )
)(batch)


app.command(
    epilog=examples(
        "tubelet classify clip.mp4",
        "tubelet classify -r clips --server localhost --out results.jsonl",
    )
)(classify)


app.command(
    epilog=examples(
        "tubelet explain clip.mp4 --label pan_right,zoom_in --out pan-or-zoom",
        "tubelet explain clip.mp4 --method relevance,attention --layer 2,3 --head 0,1",
    )
)(explain)


@app.command(
    epilog=examples(
        "tubelet evaluate kinetics/val --model NAME --html report.html",
        "tubelet evaluate --compare evaluation-a evaluation-b",
    )
)
def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="A folder with a folder for each class, or a list of paths and labels."),
    ] = None,
    model: ModelOption = "",
    version: ModelVersion = "",
    clips: Clips = None,
    crops: Crops = None,
    server: ServerAddress = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: TokenText = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
    as_json: Json = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for answers and report; default: evaluation-NAME-VERSION."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write the report as one HTML page, with pictures."
        ),
    ] = None,
    only: Annotated[
        Literal["test", "unseen"] | None,
        typer.Option(
            metavar="test|unseen",
            help="Only the clips of the split test, or only those that the model was not trained on.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Names for labels that are numbers: a line for each class, from 0."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare the evaluations in two folders, on their common videos."),
    ] = None,
) -> None:
    """Measure a model's accuracy on labelled videos. Run it again to continue. Exit status 1: all failed."""
    if compare is not None:
        asked = {"--model": model, "--version": version, "--clips": clips, "--crops": crops}
        asked |= {"DATA": data, "--server": server, "--out": out, "--config": config, "--only": only}
        asked |= {"--labels": labels}
        check_exclusive({"--compare": True}, {flag: bool(value) for flag, value in asked.items()})
        from tubelet.service.cli.evaluation.comparison_output import print_comparison

        with report_errors(as_json=as_json):
            print_comparison(*compare, html, as_json=as_json)
        return
    if data is None:
        raise typer.BadParameter("DATA is missing: labelled videos to classify; or --compare A B")
    from tubelet.service.cli.evaluation.evaluate import run_evaluation
    from tubelet.service.cli.evaluation.evaluation_output import EvaluationOutput
    from tubelet.service.cli.evaluation.selection import Labelled
    from tubelet.service.types.request import Options, Sliding

    ref = model_ref(model, version)
    options = Options(ref.name, ref.version, windowing=views(clips, crops) or Sliding())
    client = client_flags(server, tls, ca, cert, key, server_name, token, token_file)
    with report_errors(as_json=as_json):
        settings = load_config(config, client=client)
        output = EvaluationOutput(out, as_json, html)
        asyncio.run(run_evaluation(Labelled(data, only, labels), options, output, server, settings))


app.command(
    epilog=examples(
        "tubelet train clips --name mine", "tubelet train clips.csv --name mine --from camera-motion"
    )
)(train)


@app.command(epilog=examples("tubelet demo", "tubelet demo clip.mp4 --html clip.html"))
def demo(
    video: Annotated[str | None, typer.Argument(help="A video file; default: a short sample clip.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Also write a page of the answer to this file.")
    ] = None,
) -> None:
    """Start a server on free ports, classify a video through it, print some of its metrics, and stop."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print("Starting a server on free ports; loading libraries and models takes some seconds.")
    from tubelet.service.cli.demo import run_demo

    no_tls = {"certificate": None, "key": None, "client_ca": None}
    all_may = {"identities": None, "metrics_token": False, "jwt": {"issuer": ""}}
    ports = {"host": "127.0.0.1", "port": 0, "mtls_port": None, "metrics_port": 0}
    server = ports | {"tls": no_tls, "access": all_may}
    with report_errors():
        asyncio.run(run_demo(video, load_config(server=server), console, html))


@contextmanager
def _logged_crash() -> Iterator[None]:
    """Log an error that nobody expected, and exit with status 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception:
        logger.critical("the server failed", exc_info=True)
        raise typer.Exit(1) from None


def _server_flags(host: str | None, port: int | None, metrics_port: int | None) -> dict[str, str | int]:
    """Return the keys of the configuration's ``server`` table that were given as flags."""
    flags = {"host": host, "port": port, "metrics_port": metrics_port}
    return {key: value for key, value in flags.items() if value is not None}
