"""The answers of an evaluation on disk, a line each as they come, so that it resumes after an interruption.

The first line says what was asked; a line that was cut off in the middle does not count.
"""

import json
from pathlib import Path
from typing import Any


class OtherEvaluation(Exception):
    """The file holds the answers to something else."""


class Results:
    """``done`` holds the predicted labels of each video by its name, best first."""

    def __init__(self, path: Path, done: dict[str, tuple[str, ...]]) -> None:
        self.done = done
        self._path = path

    def add(self, video: str, label: str, predicted: list[tuple[str, float]]) -> None:
        """Keep an answer: the true label, and labels with their scores, best first."""
        labels = [{"label": name, "score": score} for name, score in predicted]
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"video": video, "label": label, "labels": labels}))
        self.done[video] = tuple(name for name, _ in predicted)


def open_results(path: Path, asked: dict[str, Any]) -> Results:
    """Those of an earlier run, or new ones where none came to an answer.

    Raises:
        OtherEvaluation: they are there already, for other options or data, or the file is none of ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    try:
        before, *answers = [json.loads(line) for line in whole.splitlines()] or [{"asked": asked}]
        other = _other(before["asked"], asked)
        done = {each["video"]: tuple(label["label"] for label in each["labels"]) for each in answers}
    except (ValueError, LookupError, TypeError):
        raise OtherEvaluation(f"{path} does not hold the results of an evaluation") from None
    if not answers:
        path.write_text(_line({"asked": asked}), encoding="utf-8")
    elif other:
        raise OtherEvaluation(f"{path} holds another evaluation ({other}); name another --out")
    elif whole != content:
        path.write_bytes(whole)
    return Results(path, done)


def _other(before: dict[str, Any], asked: dict[str, Any]) -> str:
    """What differs, in words."""
    keys = [key for key in asked if before[key] != asked[key]]
    return ", ".join(f"{key} was {before[key]}, is {asked[key]}" for key in keys)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
