"""What an installation adds to Python: the package ``tubelet``, the same files whichever way it is built."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_IMPORT_ALL = """
import contextlib, importlib, pkgutil, sys, tubelet
assert tubelet.__file__.startswith(sys.argv[1]), tubelet.__file__
try:
    with contextlib.redirect_stdout(sys.stderr):  # what it imports may print
        import ray
    left_out = ()
except Exception:  # it is an extra, which no test needs that is not slow
    left_out = tuple(f"tubelet.service.batch.ray.{name}" for name in ("cluster", "dataset", "pool"))
names = [each.name for each in pkgutil.walk_packages(tubelet.__path__, "tubelet.")]
for name in names:
    if not name.endswith("__main__") and name not in left_out:
        importlib.import_module(name)
print(len(names))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of this tree, of what git archives of it, and of its sdist."""
    folder = tmp_path_factory.mktemp("wheels")
    archived = folder / "archived"
    archived.mkdir()
    listed = _run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    names = "\n".join(name for name in listed.split("\0") if os.path.lexists(ROOT / name)) + "\n"
    packed = subprocess.run(
        ["tar", "-c", "--files-from=-"], cwd=ROOT, input=names.encode(), check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", archived], input=packed.stdout, check=True)
    sdist = _build(archived, "sdist", folder / "packed")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    sources = {"tree": ROOT, "archive": archived, "sdist": unpacked}
    return {name: _build(source, "wheel", folder / name) for name, source in sources.items()}


def test_every_way_to_build_gives_the_same_files(wheels: dict[str, Path]) -> None:
    contents = {name: _contents(wheel) for name, wheel in wheels.items()}
    assert contents["archive"] == contents["tree"]
    assert contents["sdist"] == contents["tree"]


def test_an_installation_adds_one_name(wheels: dict[str, Path]) -> None:
    tops = {name.split("/")[0] for name in _contents(wheels["tree"])}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"tubelet"}


def test_a_wheel_has_every_source_file(wheels: dict[str, Path]) -> None:
    listed = _run("git", "ls-files", "service", "models", "protos/tubelet", cwd=ROOT).split()
    expected = {
        f"tubelet/{name.removeprefix('protos/tubelet/')}"
        for name in listed
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink()
    }
    assert expected <= set(_contents(wheels["tree"]))


@pytest.mark.parametrize("name", ["tree", "sdist"])
def test_every_module_of_a_wheel_imports(wheels: dict[str, Path], tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        wheel.extractall(tmp_path)
    said = _run(
        sys.executable, "-P", "-c", _IMPORT_ALL, str(tmp_path), env=_with_path(tmp_path), cwd=tmp_path
    )
    assert int(said) > 100


@pytest.mark.parametrize("has_init", [True, False])
def test_a_project_keeps_its_own_models_and_service(tmp_path: Path, has_init: bool) -> None:
    _write_project(tmp_path, has_init=has_init)
    code = (
        "import models.net, service.billing, tubelet.service.errors, tubelet.models.spec;"
        "from tubelet import Client, Options; print(models.net.NAME, service.billing.NAME)"
    )
    assert _run(sys.executable, "-c", code, cwd=tmp_path) == "my net my billing\n"


@pytest.mark.parametrize("has_init", [True, False])
def test_the_command_works_beside_a_project_of_such_names(
    tmp_path: Path, sample: bytes, has_init: bool
) -> None:
    _write_project(tmp_path, has_init=has_init)
    (tmp_path / "clip.mp4").write_bytes(sample)
    tubelet = Path(sys.executable).with_name("tubelet")
    said = _run(str(tubelet), "classify", "--json", "clip.mp4", env=_with_path(tmp_path), cwd=tmp_path)
    assert '"model": "camera-motion"' in said


def test_nothing_imports_the_folders_by_their_bare_names() -> None:
    done = subprocess.run(
        ["git", "grep", "-nE", r"^\s*(from|import) (service|models)\b", "--", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr  # 1: git looked, and found none


def _write_project(folder: Path, *, has_init: bool) -> None:
    for package, module in (("models", "net"), ("service", "billing")):
        (folder / package).mkdir()
        (folder / package / f"{module}.py").write_text(f'NAME = "my {module}"\n')
        if has_init:
            (folder / package / "__init__.py").write_text("")


def _with_path(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder)}


def test_the_client_alone_says_what_classify_needs() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport tubelet; tubelet.Client; tubelet.classify"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: tubelet.classify needs torch, which is not installed: "
        "pip install 'tubelet[serve]'"
    )


def _build(source: Path, target: str, into: Path) -> Path:
    _run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into), cwd=source)
    (built,) = (*into.glob("*.whl"), *into.glob("*.tar.gz"))
    return built


def _contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
