"""Whether a temperature makes the scores of a model better, on clips that the model does not know."""

from dataclasses import replace

from tubelet.models.training.calibration import LIMITS
from tubelet.service.cli.train.new_model import Answers
from tubelet.service.cli.train.report.probe_report import clip_ece

_NEAR = 1.001  # times a limit counts as the limit


def useful_temperature(temperature: float, held_out: Answers) -> tuple[float, Answers, tuple[str, ...]]:
    """Return the temperature to apply, the answers at it, and warnings.

    On few clips a temperature can make the calibration error larger. Then it is 1: scores stay as
    fitted. So they do if only the smallest temperature told the labels apart.
    """
    before = clip_ece(held_out.fitted, held_out.labels, held_out.clips)
    after = clip_ece(held_out.calibrated, held_out.labels, held_out.clips)
    if after > before:
        warning = (
            f"a temperature of {temperature:.3g} would make the calibration error of clips larger, "
            f"{after:.3f} instead of {before:.3f}: it is not applied"
        )
        return 1.0, replace(held_out, calibrated=held_out.fitted), (warning,)
    if temperature <= LIMITS[0] * _NEAR:
        warning = (
            f"the temperature is at its limit, {LIMITS[0]:g}, since the scores of all labels are nearly "
            "equal: it is not applied, or chance would look sure"
        )
        return 1.0, replace(held_out, calibrated=held_out.fitted), (warning,)
    if temperature < LIMITS[1] / _NEAR:
        return temperature, held_out, ()
    warning = (
        f"the temperature is at its limit, {LIMITS[1]:g}: on clips that it does not know, the model is no "
        "better than chance, and its scores say so"
    )
    return temperature, held_out, (warning,)
