"""The videos in a folder of this machine, known by their extensions."""

import os
import stat
from collections.abc import Iterator

# The extensions of videos in a folder. A file that is named itself may have any.
VIDEO_EXTENSIONS = (
    *("264", "265", "3g2", "3gp", "asf", "avi", "cmfv", "flv", "gif", "h264", "h265", "hevc", "ivf", "m2ts"),
    *("m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "obu", "ogv", "ts", "webm", "wmv"),
)


def find_video_files(top: str) -> Iterator[tuple[str, str | None]]:
    """Yield the paths of the videos below ``top``, files before folders, by name.

    Hidden files and repeated links are left out. With a folder that cannot be read comes the reason.
    """
    seen: set[str] = set()
    folders = [top]
    while folders:
        folder = folders.pop()
        if not _add_new(folder, seen):
            continue
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError as error:
            yield folder, f"cannot be read: {error.strerror}"
            continue
        paths = [os.path.join(folder, name) for name in names]
        folders += reversed([path for path in paths if os.path.isdir(path)])
        yield from ((path, None) for path in paths if _is_video(path) and _add_new(path, seen))


def _add_new(path: str, seen: set[str]) -> bool:
    """Add the path's target to ``seen``, and return whether it was not there yet."""
    real = os.path.realpath(path)
    is_new = real not in seen
    seen.add(real)
    return is_new


def _is_video(path: str) -> bool:
    """Return whether the path has a video's extension, and is a file or a broken link."""
    if os.path.splitext(path)[1].lower().lstrip(".") not in VIDEO_EXTENSIONS:
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # a broken link is reported when it is read
        return True
