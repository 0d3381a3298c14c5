"""Labels of checkpoints: one line each, in the order of the logits, or refused with nothing in the store."""

import json
from pathlib import Path

import pytest

from tests.support.checkpoints import LABELS, edit, save
from tests.support.cli_process import tubelet
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.checkpoints.labels import clean_labels, read_labels
from tubelet.models.errors import CannotImport
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ModelStore

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"]


def save_labelled(folder: Path, labels: dict[str, object]) -> Path:
    """A VideoMAE of seven logits with this id2label."""
    save("videomae", folder)
    edit(folder, "config.json", id2label=labels)
    return folder


def by_logit(*labels: object, first: int = 0) -> dict[str, object]:
    return {str(first + logit): label for logit, label in enumerate(labels)}


@pytest.mark.parametrize("line_break", BREAKS)
def test_labels_with_line_breaks_become_one_line(tmp_path: Path, line_break: str) -> None:
    odd = (f"two{line_break}lines", f"at its end{line_break}", f"{line_break}before", *LABELS[3:])
    foreign = read_source(str(save_labelled(tmp_path / "theirs", by_logit(*odd))))
    wanted = ("two lines", "at its end", "before", *LABELS[3:])
    assert foreign.labels == wanted
    assert "is now 'two lines'" in foreign.warnings[0]
    store_model(foreign, tmp_path / "store", "imported", "1")
    assert ModelStore(tmp_path / "store").find("imported").spec.labels == wanted


def test_the_command_names_labels_that_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    theirs = save_labelled(tmp_path / "theirs", by_logit("a\nb", *LABELS[1:]))
    done = tubelet("models", "import", str(theirs), "--json")
    assert done.returncode == 0, done.stderr
    (warning,) = json.loads(done.stdout)["warnings"]
    assert r"'a\nb' is now 'a b'" in warning
    assert warning in done.stderr


def test_only_some_of_many_changed_labels_are_named() -> None:
    _, (warning,) = clean_labels([f"label {number}\n" for number in range(1000)])
    assert "'label 2'" in warning
    assert warning.endswith("and 997 more")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("a", "b", " ", *"defg"), "the label of logit 2 is empty"),
        (("a", "b", None, *"defg"), "the label of logit 2 is empty"),
        (("a", "\ud800", *"cdefg"), "the label of logit 1, .* is not Unicode text"),
        (
            ("a\nb", "c", "a b", *"defg"),
            r"logits 0 and 2 have the same label, 'a b' \(they were 'a\\nb' and 'a b'\)",
        ),
    ],
)
def test_ambiguous_labels_are_refused(tmp_path: Path, labels: tuple[object, ...], says: str) -> None:
    theirs = save_labelled(tmp_path / "theirs", by_logit(*labels[:7]))
    with pytest.raises(CannotImport, match=says):
        store_model(read_source(str(theirs)), tmp_path / "store", "imported", "1")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("id2label", "says"),
    [
        (by_logit(*LABELS, first=1), "id2label in its config has 7 labels for logits 1 to 7"),
        ({"0": "a", "5": "b"}, "id2label in its config has 2 labels for logits 0 to 5"),
        ({"a": "0", "b": "1"}, "id2label in its config has keys that are not numbers"),
        (list(LABELS), "id2label in its config must be a table of logits and labels, it is a list"),
    ],
)
def test_labels_replace_an_id2label_that_cannot_be_used(
    tmp_path: Path, id2label: dict[str, object], says: str
) -> None:
    theirs = str(save_labelled(tmp_path / "theirs", id2label))
    with pytest.raises(CannotImport, match=f"7 logits, but there are no labels: {says}"):
        store_model(read_source(theirs), tmp_path / "store", "imported", "1")
    store_model(read_source(theirs, labels=tuple("abcdefg")), tmp_path / "store", "imported", "1")
    assert ModelStore(tmp_path / "store").find("imported").spec.labels == tuple("abcdefg")


def test_a_label_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffrün\r\nju\u2028mp\r\n\r\n".encode())
    assert read_labels(str(file)) == ("rün", "ju\u2028mp")


def test_an_unreadable_folder_is_not_written(tmp_path: Path) -> None:
    """Two labels that make three lines: a spec that refuses them is not there to stop this."""
    save("videomae", tmp_path / "theirs")
    store_model(read_source(str(tmp_path / "theirs")), tmp_path / "store", "imported", "1")
    entry = ModelStore(tmp_path / "store").find("imported")
    object.__setattr__(entry.spec, "labels", ("a\nb", *LABELS[1:]))
    with pytest.raises(ValueError, match="labels would be read with other values"):
        write_folder(tmp_path / "store" / "other" / "1", entry.spec, entry.dims, entry.load(), "")
    assert not (tmp_path / "store" / "other").exists()
