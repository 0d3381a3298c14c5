"""The specification of a model: what it imports."""

import subprocess
import sys


def test_spec_needs_python_alone() -> None:
    code = "import sys, tubelet.models.spec; print(*sys.modules.keys() & {'numpy', 'pydantic', 'torch'})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert result.stdout.split() == []
