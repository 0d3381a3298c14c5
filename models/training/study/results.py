"""The results of the study's runs: one file of JSON a run, written when it is done."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tubelet.models.errors import CannotTrain
from tubelet.models.json_file import write_json
from tubelet.models.training.study.design import ARCHITECTURES, Design, Run


@dataclass(frozen=True, slots=True)
class Result:
    """What a run measured. ``answers`` are the labels, by number, that it gives to the test windows.

    ``processor_s`` is the processor time of training, without rendering. ``digest`` identifies all windows.
    """

    run: Run
    rate: float
    steps: int
    parameters: int
    processor_s: float
    validation_accuracy: float
    accuracy: float
    answers: list[int] = field(repr=False)
    digest: str


def result_file(run: Run, folder: Path) -> Path:
    """Return the file of a run's result in the folder of a study."""
    return folder / "results" / f"{run.name}.json"


def write_result(result: Result, folder: Path) -> None:
    """Write a result, atomically."""
    file = result_file(result.run, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(result))


def read_results(runs: list[Run], design: Design, digest: str, folder: Path) -> dict[Run, Result]:
    """Return the results of those ``runs`` that are done.

    Raises:
        CannotTrain: a result is of other windows than those with ``digest``, or of other steps.
    """
    found = {}
    for run in runs:
        file = result_file(run, folder)
        if file.is_file():
            values = json.loads(file.read_text())
            result = Result(**values | {"run": Run(**values["run"])})
            if (result.digest, result.steps) != (digest, design.steps_of(run)):
                raise CannotTrain(
                    f"{file} is of {result.steps} steps on windows {result.digest}, this study has "
                    f"{design.steps_of(run)} steps on {digest}: use another folder, or remove the results"
                )
            found[run] = result
    return found


def best_rates(results: dict[Run, Result], design: Design) -> dict[str, float]:
    """Return the learning rate of each architecture that is best on the validation windows.

    All runs of the search must be done.
    """
    return {
        model: max(
            (run for run in design.search_runs() if run.model == model),
            key=lambda run: results[run].validation_accuracy,
        ).rate
        or 0.0
        for model in ARCHITECTURES
    }
