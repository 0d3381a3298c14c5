"""The last step of writing a folder: it gets its name at once, or takes the place of an older folder."""

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100  # paths are relative to the working directory, as elsewhere
_RENAME_EXCHANGE = 2


def publish_folder(partial: Path, folder: Path, *, overwrite: bool = True) -> None:
    """Give the folder ``partial`` the name ``folder``; an older folder of that name is removed.

    At any time one of the two has the name, where the kernel and the file system can exchange names (Linux
    with ext4, XFS, Btrfs, tmpfs and others). Elsewhere, such as on NFS, the name is free for an instant.

    Raises:
        FileExistsError: there is an older folder, and it is not to be overwritten.
        OSError: a folder cannot be renamed.
    """
    if not folder.exists():
        partial.rename(folder)  # refused where another process has just written it
        return
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "another process has just written it", str(folder))
    try:
        _exchange(partial, folder)
        old = partial
    except (OSError, AttributeError):
        # Renaming cannot replace a folder that is not empty, so the old one is moved aside first.
        old = partial.with_name(partial.name + "-old")
        folder.rename(old)
        try:
            partial.rename(folder)
        except BaseException:
            with suppress(OSError):
                old.rename(folder)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders in one step, by renameat2(2).

    Raises:
        OSError: the kernel or the file system cannot do that.
        AttributeError: the C library does not have the call.
    """
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    paths = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
