"""Labels of foreign checkpoints: from a file, by the name of a set, and each on one line."""

from collections.abc import Sequence
from pathlib import Path

from torchvision.models import ResNet50_Weights
from torchvision.models.video import R3D_18_Weights

from tubelet.models.checkpoints.foreign_checkpoint import CannotImport

LABEL_SETS = {
    "imagenet-1k": ResNet50_Weights.IMAGENET1K_V2,
    "kinetics-400": R3D_18_Weights.KINETICS400_V1,
}
_NAMED = 3  # changed labels in a warning; a file may have thousands


def read_labels(source: str) -> tuple[str, ...]:
    """The labels of a file, one a line, or of a set by name: imagenet-1k or kinetics-400.

    Raises:
        CannotImport: there is no such file.
    """
    if source in LABEL_SETS:
        return tuple(LABEL_SETS[source].meta["categories"])
    try:
        # Not splitlines(): it breaks lines at U+2028 and its like, too, which a label may hold.
        lines = Path(source).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotImport(
            f"labels {source} cannot be read: {reason}; a file or one of {', '.join(LABEL_SETS)}"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def clean_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels with one blank for each run of white space and line breaks, and warnings that name changes.

    Raises:
        CannotImport: a label is empty, is not Unicode text, or is the same as another one.
    """
    cleaned = tuple(" ".join(label.split()) for label in labels)
    logits: dict[str, int] = {}  # by label
    for logit, label in enumerate(cleaned):
        if not label:
            raise CannotImport(f"the label of logit {logit} is empty; name all labels with --labels")
        if not _is_text(label):
            raise CannotImport(
                f"the label of logit {logit}, {label!r}, is not Unicode text; name all labels with --labels"
            )
        if label in logits:
            raise CannotImport(
                f"logits {logits[label]} and {logit} have the same label, {label!r}"
                f"{_before_cleaning(labels[logits[label]], labels[logit])}; labels must be distinct"
            )
        logits[label] = logit
    changed = [(old, new) for old, new in zip(labels, cleaned, strict=True) if old != new]
    if not changed:
        return cleaned, ()
    named = ", ".join(f"{old!r} is now {new!r}" for old, new in changed[:_NAMED])
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return cleaned, (f"line breaks and white space in labels were replaced by one blank: {named}{more}",)


def _before_cleaning(one: str, other: str) -> str:
    return "" if one == other else f" (they were {one!r} and {other!r})"


def _is_text(label: str) -> bool:
    """Whether UTF-8 can hold it: JSON may name half of a surrogate pair."""
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return True
