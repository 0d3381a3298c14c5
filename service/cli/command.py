"""The entry point of the ``tubelet`` command."""

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich", "pydantic_settings", "torch", "torchvision", "av")


def main() -> None:
    """Run the command, or say in one line which extra installs it."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        sys.exit(
            f"tubelet: this installation is the Python client alone ({', '.join(missing)} not installed); "
            "pip install 'tubelet[serve]' adds the command and the server"
        )
    from tubelet.service.cli.app import app

    app()
