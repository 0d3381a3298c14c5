"""The server's process: SIGTERM or SIGINT drains it, a second one ends it at once, SIGHUP reloads files."""

import asyncio
import gc
import importlib.metadata
import logging
import os
import resource
import signal
from collections.abc import Callable
from types import FrameType

from tubelet.models.errors import UnknownModel
from tubelet.service.config.config import Config
from tubelet.service.config.problems import BadConfig
from tubelet.service.server.app import RunningServer, open_server
from tubelet.service.server.model_manager import LOAD_ERRORS

_OTHER_DESCRIPTORS = 1024  # those of videos, workers, HTTP and models
_ENDING = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class NoDeviceLeft(RuntimeError):
    """The server ended because every device failed; a new process may do better."""


async def run_until_signal(
    config: Config, ready: Callable[[RunningServer], None], reread: Callable[[], Config]
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP calls ``reread``, and reloads the models,
    the certificate and the identities.

    ``ready`` is called once the server takes calls. A second SIGTERM or SIGINT ends the process at once, with
    the exit status 128 + its number, as shells have it for a process that a signal ended: 130 for SIGINT, 143
    for SIGTERM.

    Raises:
        NoDeviceLeft: the server ended because every device failed.
    """
    logger.info("tubelet %s starts as process %d", importlib.metadata.version("tubelet"), os.getpid())
    stop, change = asyncio.Event(), asyncio.Event()
    starting = asyncio.current_task()
    assert starting is not None
    is_ready = is_given_up = False

    def end() -> None:
        """Begin to drain, or stop the start; from now on a signal ends the process at once."""
        nonlocal is_given_up
        if not is_ready and not is_given_up:
            is_given_up = starting.cancel()  # stop loading models
        stop.set()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, change.set)
    # Imported modules stay: a garbage collection that visits them stops all calls for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        async with open_server(config) as server:
            is_ready = True
            num_ports = 1 if server.mtls_port is None else 2
            _allow_descriptors(config.server.max_connections * num_ports * len(server.addresses))
            ready(server)
            await _until(stop, change, server, config, reread)
            logger.info(
                "draining for up to %g s; a second signal (Ctrl-C) ends the server at once",
                config.server.drain_s,
            )
    except asyncio.CancelledError:
        if not is_given_up:
            raise
        starting.uncancel()
        logger.info("stopped before the server was ready")
        return
    logger.info("ended: no call is in flight, and all workers have stopped")
    if server.stages.is_over.is_set():
        raise NoDeviceLeft("every device failed; the log has the errors")


def _allow_descriptors(connections: int) -> None:
    """Raise the number of files that may be open to what connections and videos take, if the system lets us.

    Some systems begin with 1024, and without one left uploads fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        logger.warning("the system lets %d files be open: too few for server.max_connections", hard)
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end_at_once(number: int, _: FrameType | None) -> None:
    """End the process without answers for calls in flight. The kernel ends the decode workers with it."""
    os._exit(128 + number)


async def _until(
    stop: asyncio.Event,
    change: asyncio.Event,
    server: RunningServer,
    config: Config,
    reread: Callable[[], Config],
) -> None:
    """Reload the files at each ``change``, until ``stop`` is set or no device is left."""
    ends = [asyncio.create_task(event.wait()) for event in (stop, server.stages.is_over)]
    following = asyncio.create_task(_follow(change, server, config, reread))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (following, *ends):
        task.cancel()


async def _follow(
    change: asyncio.Event, server: RunningServer, config: Config, reread: Callable[[], Config]
) -> None:
    """Reload all files each time ``change`` is set; an error is logged, and changes nothing."""
    while await change.wait():
        change.clear()
        for file in (server.tls, server.identities, server.issuer_keys):
            if file is not None:
                await file.reload()
        logger.info("reloading the models")
        try:
            now = reread()
            if others := [key for key, value in now if key != "models" and value != getattr(config, key)]:
                logger.warning("only [models] changes without a restart; unchanged: %s", ", ".join(others))
            await server.stages.model_manager.reload(now.models)
        except BadConfig as error:
            for problem in error.problems:
                logger.error("the models stay as they were: %s", problem)
        except (*LOAD_ERRORS, UnknownModel, OSError) as error:
            logger.error("the models stay as they were: %s", error)
        except Exception:  # the next reload may succeed
            logger.exception("the models stay as they were")
        else:
            logger.info("model reload complete")
