"""The command ``study``: accuracy by the number of training windows, and by the number of heads."""

import fcntl
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tubelet.models.errors import CannotTrain, TrainingInterrupted
from tubelet.models.training.simulation.sources import Source
from tubelet.models.training.study.design import MODELS, Design, Run
from tubelet.models.training.study.results import Result, best_rates, read_results
from tubelet.models.training.study.run import seconds_per_step
from tubelet.models.training.study.windows import count_windows, is_rendered, read_windows, render
from tubelet.models.training.study.workers import Job, train_all
from tubelet.service.cli.training.scene_split import is_validation, scene_of
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.cli.training.study_report import write_report
from tubelet.service.config.config import load_config

notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def run_study(videos: Path, out: Path, design: Design, workers: int, *, as_json: bool) -> None:
    """Render windows, search learning rates, train all runs that are not done; write table and pictures.

    What is in ``out`` already is not computed again.

    Raises:
        CannotTrain: ``out`` has another study's results, another process uses it, or a run failed.
        TrainingInterrupted: the user stopped the study, by Ctrl-C or SIGTERM.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _lock(out):
            render_windows(videos, out, design)
            _train(out, design, workers, as_json=as_json)
    except KeyboardInterrupt:
        raise TrainingInterrupted(
            f"interrupted: what is done is kept in {out}, and the same command goes on from there"
        ) from None


def _train(out: Path, design: Design, workers: int, *, as_json: bool) -> None:
    """Train all runs that are not done, the search first; write table and pictures."""
    digest = "".join(read_windows(part, out / "windows").digest for part in count_windows(design))
    search, runs = design.search_runs(), design.study_runs()
    done = read_results([*search, *runs], design, digest, out)
    missing = [run for run in (*search, *runs) if run not in done]
    if missing:
        notes.print(predict_hours(missing, design, workers))
    with _bar() as bar:
        watch = _Watch(bar, done, out, design, as_json=as_json)
        jobs = [Job(run, run.rate) for run in search if run not in done and run.rate is not None]
        train_all(jobs, design, out, workers, watch)
        rates = best_rates(watch.done, design)
        jobs = [Job(run, rates[MODELS[run.model].rate_of]) for run in runs if run not in done]
        train_all(jobs, design, out, workers, watch)
    write_report(watch.done, design, out)
    notes.print(f"{len(runs)} runs are done; the table and the pictures are in {out}")


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold the folder of a study.

    Raises:
        CannotTrain: another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotTrain(
                f"another process runs the study in {out}: wait for it, or give another --out"
            ) from None
        yield


def render_windows(videos: Path, out: Path, design: Design) -> None:
    """Render the windows that are missing, from the scenes of each part."""
    missing = {
        part: count
        for part, count in count_windows(design).items()
        if not is_rendered(part, count, out / "windows")
    }
    if not missing:
        return
    sources = _sources_by_part(videos, out / "sources")
    with _bar() as bar:
        for part, count in missing.items():
            task = bar.add_task(f"rendering {part} windows", total=count)
            render(
                part, count, sources[part], out / "windows", lambda more, task=task: bar.advance(task, more)
            )


def _sources_by_part(videos: Path, cache: Path) -> dict[str, list[Source]]:
    """Return the clips that each part films; no scene is in two parts."""
    config = load_config().decode
    known = load_sources(videos, cache, config, test=False)
    validation = [is_validation(scene_of(videos / source.name, videos)) for source in known]
    return {
        "training": [source for source, chosen in zip(known, validation, strict=True) if not chosen],
        "validation": [source for source, chosen in zip(known, validation, strict=True) if chosen],
        "test": load_sources(videos, cache, config, test=True),
    }


def predict_hours(runs: Iterable[Run], design: Design, workers: int) -> str:
    """Predict from a short measurement how long ``runs`` take on free processors, as a sentence."""
    runs = list(runs)
    seconds = {model: seconds_per_step(model, design) for model in sorted({run.model for run in runs})}
    total_s = sum(design.steps_of(run) * seconds[run.model] for run in runs)
    return (
        f"predicted: {total_s / workers / 3600:.1f} hours on {workers} free cores, {total_s / 3600:.1f} "
        f"hours of processor time, for {len(runs)} runs of up to {design.steps} steps"
    )


class _Watch:
    """Shows how far the study is, and writes its table and pictures after each result."""

    def __init__(
        self, bar: Progress, done: dict[Run, Result], out: Path, design: Design, *, as_json: bool
    ) -> None:
        self.done, self._bar, self._out, self._design = dict(done), bar, out, design
        self._as_json = as_json
        self._steps = {run: design.steps_of(run) for run in done}
        runs = (*design.search_runs(), *design.study_runs())
        self._count = len(runs)
        self._task = bar.add_task("", total=sum(map(design.steps_of, runs)))
        self._show()

    def on_steps(self, run: Run, steps: int) -> None:
        self._steps[run] = steps
        self._show()

    def on_result(self, result: Result) -> None:
        self.done[result.run] = result
        self.on_steps(result.run, result.steps)
        if self._as_json:
            print(json.dumps({"run": result.run.name} | describe(result)), flush=True)
        else:
            self._bar.console.print(sentence(result))
        write_report(self.done, self._design, self._out)

    def _show(self) -> None:
        description = f"{len(self.done)} of {self._count} runs done"
        self._bar.update(self._task, completed=sum(self._steps.values()), description=description)


def describe(result: Result) -> dict[str, object]:
    """Return what a run measured, for machines."""
    return {
        "model": result.run.model,
        "windows": result.run.windows,
        "seed": result.run.seed,
        "learning_rate": result.rate,
        "is_search": result.run.rate is not None,
        "steps": result.steps,
        "parameters": result.parameters,
        "processor_s": round(result.processor_s, 1),
        "validation_accuracy": result.validation_accuracy,
        "accuracy": result.accuracy,
    }


def sentence(result: Result) -> str:
    """Return what a run measured, in words."""
    run = result.run
    kind = "search of the learning rate, " if run.rate is not None else ""
    return (
        f"{kind}{MODELS[run.model].title}, {run.windows} windows, seed {run.seed}, rate {result.rate:g}: "
        f"validation {result.validation_accuracy:.3f}, test {result.accuracy:.3f}, "
        f"{result.processor_s:.0f} s of processor time"
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _bar() -> Progress:
    """Return a progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=notes)
