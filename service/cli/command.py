"""The entry point of the ``tubelet`` command."""

import logging
import os
import sys
from importlib.util import find_spec
from io import TextIOWrapper

_REQUIRED = ("typer", "rich", "pydantic_settings", "torch", "torchvision", "av")
_INTERRUPTED = 130  # as shells report a process that SIGINT killed


def main() -> None:
    """Run the command; if its libraries are missing, say in one line which extra installs them.

    Ctrl-C while it starts ends it with a word, too.
    """
    if missing := [name for name in _REQUIRED if find_spec(name) is None]:
        sys.exit(
            f"tubelet: only the Python client is installed ({', '.join(missing)} missing); "
            "pip install 'tubelet[serve]' adds the command and the server"
        )
    try:
        if isinstance(sys.stdout, TextIOWrapper):  # a path may be no UTF-8
            sys.stdout.reconfigure(errors="backslashreplace")
        from tubelet.service.cli.app import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except SystemExit as ended:
        _exit_if_threads_run(ended.code)
        raise


def _exit_if_threads_run(code: str | int | None) -> None:
    """End the process at once if a thread still runs torch's code, such as loading a model.

    Such a thread cannot be stopped, and Python's own end would abort the process in it.
    """
    from tubelet.service.engine.daemon_threads import has_running_threads

    if has_running_threads():
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
