"""Labels as subtitles: the best label of each merged segment, as SubRip (.srt) and WebVTT (.vtt).

SubRip has no specification and no escapes; what players take for a tag or a style begins with ``<`` or ``{``.
WebVTT is https://www.w3.org/TR/webvtt1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from tubelet.service.report.merged_segments import Line, MergedSegment, merge_segments
from tubelet.service.report.own_files import WEBVTT_START
from tubelet.service.report.text import printable
from tubelet.service.types.result import Classification, Label

_MAX_LABEL = 100  # characters of a label; more would cover the picture
_WORD_JOINER = "\u2060"  # is not seen, and keeps what it stands in from being a tag or an arrow
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Cue:
    """A line of text that is shown for a time range."""

    start_ms: int
    end_ms: int
    text: str


def srt_text(answer: Classification) -> str:
    """Return the labels of a video as a file of SubRip subtitles."""
    return "".join(
        f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{_without_tags(cue.text)}\n\n"
        for number, cue in enumerate(_cues(answer), 1)
    )


def webvtt_text(answer: Classification) -> str:
    """Return the labels of a video as a file of WebVTT subtitles."""
    return WEBVTT_START + "".join(
        f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{escape(cue.text, quote=False)}\n\n"
        for cue in _cues(answer)
    )


def _cues(answer: Classification) -> Iterator[_Cue]:
    """Yield a cue for each merged segment that has a label."""
    for line in merge_segments(answer.segments):
        best = _best(line)
        if best is not None:
            start_ms, end_ms = (round(time_ns / _NS_PER_MS) for time_ns in (line.start_ns, line.end_ns))
            yield _Cue(
                start_ms, max(end_ms, start_ms + 1), f"{_shortened(printable(best.name))} {best.score:.2f}"
            )


def _best(line: Line) -> Label | None:
    """Return the best label of a line; None if it has none."""
    if isinstance(line, MergedSegment):
        return line.best
    return line.labels[0] if line.labels else None


def _shortened(name: str) -> str:
    """Cut a long name."""
    return name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"


def _without_tags(text: str) -> str:
    """Return ``text`` as SubRip shows it unchanged: nothing in it is a tag, a style or an arrow."""
    for begin, end in ("<", ""), ("{", ""), ("--", ">"):
        text = text.replace(begin + end, begin + _WORD_JOINER + end)
    return text


def _time(time_ms: int, separator: str) -> str:
    """Format a time as 01:29:59.500, with ``separator`` before the milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{separator}{milliseconds:03}"
