"""A server's process: SIGTERM or SIGINT drains it, a second one ends it at once, SIGHUP rereads models."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tubelet.models.repository.repository import UnknownModel
from tubelet.service.config.config import Config
from tubelet.service.config.problems import BadConfig
from tubelet.service.engine.daemon_threads import is_any_at_work
from tubelet.service.server.app import RunningServer, open_server
from tubelet.service.server.model_manager import CANNOT_LOAD, Shelf

_ENDING = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class NoDeviceLeft(RuntimeError):
    """Every device failed: only another process may do better."""


def serve(config: Config, ready: Callable[[RunningServer], None], reread: Callable[[], Config]) -> None:
    """As ``run_until_signal``; the process ends, too, where a model is being loaded then.

    Raises:
        NoDeviceLeft
    """
    asyncio.run(run_until_signal(config, ready, reread))
    if is_any_at_work():  # a thread in torch's code aborts the process where Python ends before it does
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


async def run_until_signal(
    config: Config, ready: Callable[[RunningServer], None], reread: Callable[[], Config]
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP rereads the models, and which of them are wanted.

    A second SIGTERM or SIGINT ends the process at once, with the exit status 128 + its number, as shells have
    it for a process that a signal ended: 130 for SIGINT, 143 for SIGTERM.

    Raises:
        NoDeviceLeft: it ended because nothing can be computed any more.
    """
    stop, change = asyncio.Event(), asyncio.Event()
    starting = asyncio.current_task()
    assert starting is not None
    is_ready = is_given_up = False

    def end() -> None:
        nonlocal is_given_up
        if not is_ready and not is_given_up:
            is_given_up = starting.cancel()  # loading models that nobody will ask
        stop.set()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, change.set)
    # What was imported stays: a collection that walks through it stops all calls for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        async with open_server(config) as server:
            is_ready = True
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
        logger.info("stopped before it was ready")
        return
    if server.stages.is_over.is_set():
        raise NoDeviceLeft("every device failed; the log says how")


def _end_at_once(number: int, _: FrameType | None) -> None:
    """Leave calls in flight without an answer. The kernel kills the decoders: they end with this process."""
    os._exit(128 + number)


async def _until(
    stop: asyncio.Event,
    change: asyncio.Event,
    server: RunningServer,
    config: Config,
    reread: Callable[[], Config],
) -> None:
    """Serve what is wanted as it changes, until somebody ends it or nothing is left to serve with."""
    ends = [asyncio.create_task(event.wait()) for event in (stop, server.stages.is_over)]
    following = asyncio.create_task(_follow(change, server.stages.shelf, config, reread))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (following, *ends):
        task.cancel()


async def _follow(change: asyncio.Event, shelf: Shelf, config: Config, reread: Callable[[], Config]) -> None:
    """Whatever is wrong with what was reread, the models that are served go on."""
    while await change.wait():
        change.clear()
        logger.info("rereading the models")
        try:
            now = reread()
            if others := [key for key, value in now if key != "models" and value != getattr(config, key)]:
                logger.warning(
                    "only models change without a restart: %s stay as they were", ", ".join(others)
                )
            await shelf.refresh(now.models)
        except BadConfig as error:
            for problem in error.problems:
                logger.error("the models stay as they were: %s", problem)
        except (*CANNOT_LOAD, UnknownModel, OSError) as error:
            logger.error("the models stay as they were: %s", error)
        except Exception:  # the next change may be a good one
            logger.exception("the models stay as they were")
        else:
            logger.info("serving the models of now")
