"""The files of ``tubelet explain``: the page, the video, the picture of all heads and the arrays."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from tubelet.service.cli.explain.overlay_video import MapPainter
from tubelet.service.cli.explain.questions import ExplainedRun, tracks_of
from tubelet.service.cli.pages.answer_pages import downloads_of
from tubelet.service.cli.pages.playable_video import NotPlayable, PlayableVideos
from tubelet.service.cli.runs.output_paths import check_paths, file_name, short_name
from tubelet.service.config.config import DecodeConfig
from tubelet.service.report.maps.head_sheet import WindowHeads, head_sheet
from tubelet.service.report.maps.map_file import write_maps
from tubelet.service.report.maps.tracks import MapTrack
from tubelet.service.report.own_files import replacing, write_own
from tubelet.service.report.text import printable
from tubelet.service.report.video_page import PlayableVideo, render_video_page

PAGE, VIDEO, HEADS, MAPS = "report.html", "overlay.mp4", "heads.png", "maps.npz"
_NAMES = (PAGE, VIDEO, HEADS, MAPS)
_MAX_PAGE_BYTES = 25_000_000  # with the video in it, which takes a third more in base64
_MAX_VIDEO_BYTES = 100_000_000
_BASE64_GROWTH = 4 / 3


def default_folder(video: str) -> Path:
    """Return the folder for the files of a video: beside it, named after it."""
    return Path(video).parent / f"{file_name(video)}-explained"


class ExplainedFiles:
    """The files in ``folder``; ``written`` are those that are done, ``notes`` sentences about the others.

    ``config`` is that of the worker that decodes the video again, to draw over its pictures.
    """

    def __init__(self, folder: Path, config: DecodeConfig) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self.notes: list[str] = []
        self._config = config

    def check(self) -> None:
        """Check, before the work, that no file would be replaced that tubelet did not write.

        Raises:
            OSError: one would, or no file can be written; the message is a sentence.
        """
        check_paths(self.folder / name for name in _NAMES)
        folder = next(each for each in (self.folder, *self.folder.absolute().parents) if each.is_dir())
        with _naming(self.folder), TemporaryFile(dir=folder):
            pass

    async def write(
        self, video: str, runs: Sequence[ExplainedRun], heads: WindowHeads | None, say: Callable[[str], None]
    ) -> None:
        """Write all files of the file ``video``; one that cannot be made is removed, so that none is stale.

        Raises:
            OSError: a file cannot be written.
        """
        say("writing files")
        arrays = {} if heads is None else heads.arrays()
        with _naming(self.folder / MAPS):
            write_maps(self.folder / MAPS, video, [run.answer for run in runs], arrays)
        self._done(MAPS)
        if heads is None:
            (self.folder / HEADS).unlink(missing_ok=True)
        else:
            self._write(HEADS, await asyncio.to_thread(head_sheet, heads))
        tracks = tracks_of(runs)
        async with PlayableVideos(self._config, say) as videos:
            await self._write_page(video, runs[0], tracks, videos)
            say("encoding the video with the maps over it")
            try:
                made = await videos.drawn_over(video, _MAX_VIDEO_BYTES, MapPainter(tracks[0]))
            except NotPlayable as error:
                (self.folder / VIDEO).unlink(missing_ok=True)
                self.notes.append(f"there is no {VIDEO}: {error}")
            else:
                self._write(VIDEO, made.content)

    async def _write_page(
        self, video: str, run: ExplainedRun, tracks: Sequence[MapTrack], videos: PlayableVideos
    ) -> None:
        """Write the page, with the video in it if there is room."""
        answer = run.answer.classification
        downloads = downloads_of(video, answer)

        def page(playable: PlayableVideo | None, notes: Sequence[str]) -> str:
            return render_video_page(short_name(video), answer, playable, notes, downloads, tracks)

        room_bytes = _MAX_PAGE_BYTES - len(page(None, []).encode(errors="backslashreplace"))
        try:
            text = page(await videos.make(video, int(room_bytes / _BASE64_GROWTH)), [])
        except NotPlayable as error:
            text = page(None, [f"The page has pictures only: {error}."])
        with _naming(self.folder / PAGE):
            write_own(self.folder / PAGE, text)
        self._done(PAGE)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file."""
        with _naming(self.folder / name), replacing(self.folder / name) as file:
            file.write(content)
        self._done(name)

    def _done(self, name: str) -> None:
        """Note that a file is written."""
        self.written.append(self.folder / name)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an error.

    Raises:
        OSError: it cannot be written; the message is a sentence.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {printable(str(path))}: {error.strerror or error}") from error
