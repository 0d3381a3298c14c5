"""Labels of imported models: read from a file or a known set, and brought to one line each."""

from collections.abc import Sequence
from pathlib import Path

from torchvision.models import ResNet50_Weights
from torchvision.models.video import R3D_18_Weights

from tubelet.models.errors import CannotImport

# Name -> weights of torchvision whose meta data has the labels.
LABEL_SETS = {
    "imagenet-1k": ResNet50_Weights.IMAGENET1K_V2,
    "kinetics-400": R3D_18_Weights.KINETICS400_V1,
}
_MAX_LISTED = 3  # changed labels in a warning


def read_labels(source: str) -> tuple[str, ...]:
    """Read the labels ``source``: a file with one a line, or the name of a set, imagenet-1k or kinetics-400.

    Raises:
        CannotImport: the file cannot be read.
    """
    if source in LABEL_SETS:
        return tuple(LABEL_SETS[source].meta["categories"])
    try:
        # Not splitlines(), which also breaks lines at U+2028 and others that a label may hold.
        lines = Path(source).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotImport(
            f"labels {source} cannot be read: {reason}; a file or one of {', '.join(LABEL_SETS)}"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def clean_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Replace each run of white space in labels by one blank; return the labels, and warnings on changes.

    Raises:
        CannotImport: a label is empty, is not Unicode text, or equals another one.
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
    named = ", ".join(f"{old!r} is now {new!r}" for old, new in changed[:_MAX_LISTED])
    more = f" and {len(changed) - _MAX_LISTED} more" if len(changed) > _MAX_LISTED else ""
    return cleaned, (f"line breaks and white space in labels were replaced by one blank: {named}{more}",)


def _before_cleaning(one: str, other: str) -> str:
    """Return a remark on two labels that were different before cleaning; empty if they were equal."""
    return "" if one == other else f" (they were {one!r} and {other!r})"


def _is_text(label: str) -> bool:
    """Return whether UTF-8 can encode a label; JSON may hold half of a surrogate pair."""
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return True
