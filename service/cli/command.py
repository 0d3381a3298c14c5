"""The entry point of the ``tubelet`` command."""

import sys
from importlib.util import find_spec

_REQUIRED = ("typer", "rich", "pydantic_settings", "torch", "torchvision", "av")


def main() -> None:
    """Run the command; if its libraries are missing, say in one line which extra installs them."""
    if missing := [name for name in _REQUIRED if find_spec(name) is None]:
        sys.exit(
            f"tubelet: only the Python client is installed ({', '.join(missing)} missing); "
            "pip install 'tubelet[serve]' adds the command and the server"
        )
    from tubelet.service.cli.app import app

    app()
