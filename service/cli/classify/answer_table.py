"""Answers as text in aligned columns; on a terminal, with colours and bars for scores."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tubelet.service.cli.output import NO_LABEL, metadata_text, notes_text
from tubelet.service.report.merged_segments import Line, MergedSegment
from tubelet.service.report.text import printable, span_text
from tubelet.service.types.result import Classification, Label
from tubelet.service.types.video import VideoMetadata

_BAR_WIDTH = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SPAN_WIDTH = len("0:00:00.0 - 0:00:00.0")
_GAP = "  "


class AnswerTable:
    """The answer of one video as a table, printed line by line; columns grow with their widest label.

    Lines that are printed one by one stay aligned if no label is wider than ``label_width``.
    """

    def __init__(self, console: Console, label_width: int = 0) -> None:
        self._console = console
        # Anything else than a terminal gets plain text in unbroken lines.
        self._is_terminal = console.is_terminal and not console.is_dumb_terminal
        self._has_bars = self._is_terminal and not console.options.ascii_only
        self._widths = [label_width]

    def header(self, name: str, metadata: VideoMetadata | None) -> None:
        """Print the video's name and metadata."""
        line = Text(printable(name), "bold")
        line.append(f": {metadata_text(metadata)}" if metadata else "", "none")
        self._print(line)

    def rows(self, lines: Sequence[Line]) -> None:
        """Print lines, aligned with each other and with those before."""
        for line in lines:
            self._fit(_labels(line))
        for line in lines:
            row = self._row(
                Text(f"{span_text(line.start_ns, line.end_ns):{_SPAN_WIDTH}}", "cyan"), _labels(line)
            )
            if isinstance(line, MergedSegment):
                scores = f"{line.lowest:.2f}-{line.highest:.2f} " if line.best else ""
                row.append(f"{_GAP}{scores}in {line.segments} segments", "dim")
            self._print(row)

    def end(self, answer: Classification) -> None:
        """Print the labels of the whole video, and notes."""
        self._fit(answer.labels)
        self._print(self._row(Text(f"{'whole video':{_SPAN_WIDTH}}", "bold"), answer.labels))
        for note in notes_text(answer):
            self.note(note)

    def note(self, text: str) -> None:
        """Print an indented remark."""
        self._print(Text(f"{_GAP}{text}", "yellow"))

    def _fit(self, labels: Sequence[Label]) -> None:
        """Widen the columns so that the labels fit."""
        for column, label in enumerate(labels):
            if column == len(self._widths):
                self._widths.append(0)
            self._widths[column] = max(self._widths[column], cell_len(label.name))

    def _row(self, span: Text, labels: Sequence[Label]) -> Text:
        """Format a time range and its labels; on a terminal, labels that do not fit go to the next line."""
        row = Text(_GAP) + span
        if not labels:
            return row.append(f"{_GAP}{NO_LABEL}", "dim")
        indent = used = row.cell_len
        for column, (label, width) in enumerate(zip(labels, self._widths, strict=False)):
            cell = self._cell(label, width, is_best=column == 0)
            if self._is_terminal and column and used + cell.cell_len > self._console.width:
                row.append("\n" + " " * indent)
                used = indent
            row.append_text(cell)
            used += cell.cell_len
        return row

    def _cell(self, label: Label, width: int, *, is_best: bool) -> Text:
        """Format a label with its score; the best one has a bar on a terminal."""
        name = label.name + " " * (width - cell_len(label.name))
        cell = Text(f"{_GAP}{name} {label.score:.2f}", "" if is_best else "dim")
        if is_best and self._has_bars:
            cell.append(f" {_bar(label.score)}", "green")
        return cell

    def _print(self, line: Text) -> None:
        """Print a line without trailing space, and without breaking it."""
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _labels(line: Line) -> Sequence[Label]:
    """Return the labels of a line: all of a segment's, the best one of merged segments."""
    if isinstance(line, MergedSegment):
        return () if line.best is None else (line.best,)
    return line.labels


def _bar(score: float) -> str:
    """Draw a score from 0 to 1 as a bar."""
    eighths = round(min(max(score, 0.0), 1.0) * _BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR_WIDTH)
