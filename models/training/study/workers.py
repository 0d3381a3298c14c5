"""Run the trainings of the study in several processes, one thread each."""

import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, cast

import torch

from tubelet.models.errors import CannotTrain
from tubelet.models.training.study.design import Design, Run
from tubelet.models.training.study.results import Result, write_result
from tubelet.models.training.study.run import train_run


@dataclass(frozen=True, slots=True)
class Job:
    """A run with the learning rate to train it at."""

    run: Run
    rate: float


class Watch(Protocol):
    """Is told how far the runs are."""

    def on_steps(self, run: Run, steps: int) -> None:
        """Take note that ``steps`` steps of a run are done."""
        ...

    def on_result(self, result: Result) -> None:
        """Take note of what a run measured."""
        ...


def train_all(jobs: Sequence[Job], design: Design, folder: Path, workers: int, watch: Watch) -> None:
    """Train ``jobs`` in their order, ``workers`` at a time, and write their results into ``folder``.

    An exception, as Ctrl-C is, ends all processes; runs resume their last checkpoints the next time.

    Raises:
        CannotTrain: a process ended without a result.
    """
    waiting = list(reversed(jobs))
    running: dict[Connection, tuple[Job, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                connection, process = _begin(job, design, folder)
                running[connection] = job, process
            for ready in cast(list[Connection], wait(list(running))):
                job, process = running[ready]
                try:
                    message = ready.recv()
                except EOFError:
                    process.join()
                    raise CannotTrain(
                        f"{job.run.name} ended without a result, with exit status {process.exitcode}; the "
                        "same command resumes the study"
                    ) from None
                if isinstance(message, Result):
                    write_result(message, folder)
                    watch.on_result(message)
                    process.join()
                    del running[ready]
                else:
                    watch.on_steps(job.run, message)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _begin(job: Job, design: Design, folder: Path) -> tuple[Connection, BaseProcess]:
    """Start the process of a job; it sends numbers of steps, then its result.

    Ctrl-C is this process's matter: the other one inherits that it is blocked.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, design, folder, sender), daemon=True)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    sender.close()
    return receiver, process


def _work(job: Job, design: Design, folder: Path, sender: Connection) -> None:
    """Train one job in a process of its own."""
    torch.set_num_threads(1)
    sender.send(train_run(job.run, job.rate, design, folder, sender.send))
