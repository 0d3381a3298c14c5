"""Ctrl-C before a command has begun: a word and the status of shells, no traceback."""

import subprocess
import sys


def test_ctrl_c_while_the_command_starts() -> None:
    program = (
        "import signal, sys\n"
        "from tubelet.service.cli.command import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tubelet.service.cli.app':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")
