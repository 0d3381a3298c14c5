"""Commands, examples, settings, metrics and errors that the README pages show exist and work."""

import contextlib
import importlib.util
import io
import json
import logging
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from google.protobuf.json_format import Parse
from typer.testing import CliRunner

from tests.support import deploy_reference
from tests.support.reasons import reasons
from tests.support.running_server import Served
from tubelet.service.cli.app import app
from tubelet.service.client import Client
from tubelet.service.config.config import Config
from tubelet.service.config.renamed import REMOVED_KEYS, RENAMED_FLAGS, RENAMED_KEYS
from tubelet.service.log.lines import JsonLines
from tubelet.v1 import video_classifier_pb2 as pb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in (".", "deploy", "models", "service", "tests")
    if (path := ROOT / folder / "README.md").is_file()
}

# Each command of the pages' shell blocks is run by a test here or elsewhere, or has a reason why not.
RUN_HERE = (
    "tubelet classify clip.mp4 --server localhost",
    "tubelet models list",
    "tubelet models show camera-motion",
    "tubelet models verify camera-motion",
)
RUN_ELSEWHERE = {
    "tubelet demo": "tests/cli/test_app.py::test_demo_prints_labels_and_metrics",
    "tubelet models import efficientnet-lite0": "tests/models/checkpoints/test_efficientnet_lite.py::"
    "test_the_command_imports_it",
    "tubelet models export camera-motion --onnx camera-motion.onnx": "tests/cli/models/test_exporting.py::"
    "test_an_exported_model_has_the_logits_of_its_folder",
    "tubelet train clips --name mine": "tests/cli/train/test_train.py::test_a_trained_model_classifies_clips",
    "tubelet train clips --compare probe,temporal,r2plus1d,torchvision:r3d_18 --out compared": "tests/cli/"
    "train/test_comparison.py::test_a_cnn_and_a_transformer_are_compared",
    "tubelet classify clip.mp4 --model mine": "tests/cli/train/test_train.py::"
    "test_a_trained_model_classifies_clips",
    "tubelet batch videos --out rows": "tests/cli/batch/test_batch.py::test_rows_are_what_classify_answers",
    "tubelet batch --list rows": "tests/cli/batch/test_batch.py::test_the_list_names_what_is_committed",
    "tubelet batch s3://corpus/videos --out s3://corpus/rows --resume --ray 10.1.0.7:6379": (
        "tests/cli/batch/test_batch_on_ray.py::"
        "test_whatever_is_killed_every_video_has_one_row_as_in_one_process"
    ),
    "tubelet serve": "tests/cli/test_serve.py::test_serve_answers_and_drains_on_sigterm",
    "tubelet classify -r videos --embeddings all.parquet --embedding-level unit --only-embeddings": (
        "tests/cli/classify/test_embeddings_file.py::test_only_vectors_print_no_labels"
    ),
}
NETWORK, PROGRAM, TIME = "needs the network", "needs a program that is not installed", "takes too long"
NOT_RUN = {
    "python3 -m venv .venv && . .venv/bin/activate": "changes the shell",
    "pip install -e '.[serve]'": NETWORK,
    "pip install -e '.[serve,backbone]'": NETWORK,
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'": NETWORK,
    "cp service/server/warmup.mp4 clip.mp4": "changes the working tree; example_clip copies the same file",
    'grpcurl -plaintext -d \'{"name":"camera-motion"}\' localhost:8500 '
    "tubelet.v1.VideoClassifier/GetModel": PROGRAM,
    """(echo '{"options":{"topK":3,"sliding":{"window":"2s","stride":"0.5s"}}}'; """
    """echo "{\\"chunk\\":\\"$(base64 -w0 clip.mp4)\\"}") | grpcurl -plaintext -d @ localhost:8500 """
    "tubelet.v1.VideoClassifier/ClassifyStreaming": PROGRAM,
    "tubelet evaluate kinetics/val --model NAME --clips 10 --crops 3": "needs a data set",
    "tubelet evaluate --compare evaluation-a evaluation-b": "needs two evaluations",
    "python -m tubelet.service.cli.training camera-motion --videos DIR": TIME,
    "python -m tubelet.service.cli.training study --videos DIR": TIME,
    "python -m tests.bench.camera_moves --videos DIR --out runs/moves-test": TIME,
    "python -m tubelet.service.cli.training evaluate --videos DIR --clips runs/moves-test": TIME,
    "python -m tubelet.service.cli.training moving-objects --family factorised": TIME,
    "python -m tests.bench.faithful objects": TIME,
    "python -m tests.bench.faithful moves --videos DIR": TIME,
    "python -m tests.bench.faithful real --videos DIR": TIME,
    "python -m tubelet.service.cli.training publish": "overwrites the embedded model",
    ".venv/bin/pytest -n 2 --dist loadfile": "runs this suite",
    ".venv/bin/pytest tests/pipeline tests/test_client.py": "runs this suite",
    ".venv/bin/python -m tests.fuzz videos ../shared/videos/odd --inputs 20000": TIME,
    ".venv/bin/python -m tests.fuzz calls messages": TIME,
    ".venv/bin/python -m tests.fuzz files": TIME,
    ".venv/bin/python -m tests.bench.golden OLD NEW": TIME,
}


def shell_commands() -> set[str]:
    """Return the commands of all shell blocks, without comments and line breaks."""
    blocks = [block for page in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", page, re.S)]
    joined = "".join(blocks).replace("|\n", "| ").replace("\\\n", " ")
    lines = [re.sub(r"\s+# .*", "", line) for line in joined.splitlines()]
    return {re.sub(r"  +", " ", line).strip() for line in lines}


def tubelet_commands() -> list[str]:
    """Return all commands of the pages that can be parsed: those without a syntax of alternatives."""
    inline = {text for page in PAGES.values() for text in re.findall(r"`(tubelet [^`]*)`", page)}
    commands = inline | {command for command in shell_commands() if command.startswith("tubelet ")}
    return sorted(command for command in commands if not set("[|…") & set(command))


DEPLOY = deploy_reference.PAGE.read_text()
METRICS = {metric.name for metric in deploy_reference.declared_metrics()}


def section(title: str, page: str = README) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def keys() -> set[str]:
    return {f"{table}.{key}" for table, content in Config() for key in type(content).model_fields}


@pytest.mark.parametrize("page", [README, DEPLOY], ids=["README.md", "deploy/README.md"])
def test_pages_name_configuration_keys_that_exist(page: str) -> None:
    text = page.split("\n## Renamed before 1.0\n")[0]
    named = set(re.findall(r"`((?:server|upload|fetch|decode|engine|models|log)\.[a-z_]+)`", text))
    assert named
    assert named - keys() == set()


def test_generated_tables_are_up_to_date() -> None:
    fresh = deploy_reference.rewritten(DEPLOY)
    assert fresh == DEPLOY, f"run: {deploy_reference.COMMAND}"


def test_deploy_page_names_metrics_that_exist() -> None:
    text = DEPLOY.split("\n## Renamed before 1.0\n")[0]
    named = set(re.findall(r"`(tubelet_\w+)`", text))
    assert named == METRICS


def test_old_names_are_listed_with_their_new_ones() -> None:
    text = section("Renamed before 1.0", DEPLOY)
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| `(.+?)` \|$", text, re.M)
    assert dict(re.findall(r"^\| key \| `(.+?)` \| removed: (.+) \|$", text, re.M)) == REMOVED_KEYS
    assert {old: new for kind, old, new in rows if kind == "key"} == RENAMED_KEYS
    assert {old: new for kind, old, new in rows if kind == "flag"} == RENAMED_FLAGS
    assert set(RENAMED_KEYS.values()) <= keys()
    assert {*RENAMED_KEYS, *REMOVED_KEYS}.isdisjoint(keys())
    for kind, known in (("metric", METRICS), ("cause", set(deploy_reference.LABEL_VALUES["cause"]))):
        old, new = ({row[place] for row in rows if row[0] == kind} for place in (1, 2))
        assert new <= known
        assert old.isdisjoint(known)
    written = set(re.findall(r"`([A-Z_]+)`", README + section("The command in scripts", DEPLOY)))
    reasons_before, reasons_now = ({row[place] for row in rows if row[0] == "reason"} for place in (1, 2))
    assert reasons_now <= written
    assert reasons_before.isdisjoint(written)


def test_reasons_are_all_named_and_exist() -> None:
    table = section("Errors").split("| code | reasons |")[1].split("\n\n")[0]
    said = set(re.findall(r"`([A-Z_]+)`", table))
    codes = {code.name for code in grpc.StatusCode} - {"INTERNAL"}  # which is the name of a reason too
    assert said - codes == reasons() - codes


@pytest.mark.parametrize("message", re.findall(r"-d '(\{.*?\})'|echo '(\{.*?\})'", README))
def test_messages_for_grpcurl_parse(message: tuple[str, str]) -> None:
    text = "".join(message)
    kind = pb.ClassifyRequest if "options" in text else pb.GetModelRequest
    assert Parse(text, kind()) != kind()


def test_the_example_of_json_output_is_json() -> None:
    example = DEPLOY.split("```json\n")[1].split("```")[0]
    assert set(json.loads(example)) == {
        "video",
        "activation",
        "fetched_bytes",
        "model",
        "version",
        "fingerprint",
        "duration_s",
        "max_frame_offset_s",
        "labels",
        "segments",
        "warnings",
    }


def test_the_lines_of_a_call_are_as_shown(
    client: Client, sample: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    page = section("Log", DEPLOY)
    text, as_json = page.split("```\n")[1].splitlines()
    shown = json.loads(as_json)
    with caplog.at_level(logging.INFO, "tubelet.call"):
        client.classify(sample)
    found = json.loads(JsonLines().format(caplog.records[0]))
    assert list(found) == list(shown)
    for key in ("digest", "bytes", "video_s", "windows", "label"):
        assert found[key] == shown[key]
    assert re.findall(r" (\w+)=", text) == list(shown)[4:]
    explained = {
        name for row in re.findall(r"^\| (`.+?) \|", page, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert set(shown) - {"time", "level", "logger", "message"} <= explained


@pytest.fixture
def example_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with ``clip.mp4``, as the README makes it."""
    shutil.copy(ROOT / "service" / "server" / "warmup.mp4", tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)


def test_every_command_is_run_or_has_a_reason() -> None:
    assert shell_commands() == {*RUN_HERE, *RUN_ELSEWHERE, *NOT_RUN}
    for test in RUN_ELSEWHERE.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("command", NOT_RUN)
def test_commands_that_are_not_run_are_valid(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    for module in re.findall(r"python -m ([\w.]+)", command):
        assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("text", tubelet_commands())
def test_commands_have_the_options_that_pages_show(text: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(text)[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    if words and "--help" not in words:
        command.make_context("tubelet", words)


@pytest.mark.parametrize("text", RUN_HERE)
def test_commands_run(served: Served, example_clip: None, text: str) -> None:
    words = shlex.split(text.replace("localhost", served.target))[1:]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


def test_output_of_classify_is_as_shown(served: Served, example_clip: None) -> None:
    done = CliRunner().invoke(app, ["classify", "clip.mp4", "--server", served.target])
    shown = README.split("```\nclip.mp4: ")[1].split("```")[0].splitlines()
    assert _without_scores(["clip.mp4: " + shown[0], *shown[1:3]]) == _without_scores(
        done.stdout.splitlines()[:3]
    )


def test_output_of_python_is_as_shown(served: Served, example_clip: None) -> None:
    program = README.split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace("localhost:8500", served.target), {})
    assert printed.getvalue().splitlines() == re.findall(r"^# (.*)", program, re.M)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_program_is_valid(tmp_path: Path) -> None:
    """It is not run: its packages need the network."""
    (tmp_path / "client.js").write_text(README.split("```js\n")[1].split("```")[0])
    subprocess.run(["node", "--check", tmp_path / "client.js"], check=True)


def test_service_page_names_classes_and_files_that_exist() -> None:
    page = PAGES["service/README.md"]
    source = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    classes = set(re.findall(r"`([A-Z]\w*[a-z]\w*)`", page)) - {
        "Classify",
        "ClassifyStreaming",
        "Explain",
    }  # RPCs
    assert len(classes) > 10
    assert {name for name in classes if not re.search(rf"\bclass {name}\b", source)} == set()
    files = {text for text in re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", page) if not text.startswith("protos")}
    assert len(files) > 40
    roots = (ROOT, ROOT / "service", ROOT / "service" / "decode")
    assert {text for text in files if not any((root / text).exists() for root in roots)} == set()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """To files, and to headings as GitHub names them."""
    for path, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#([^)]*))?\)", PAGES[name]):
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), path
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _without_scores(lines: list[str]) -> list[str]:
    """Scores differ by CPU; times, labels and counts do not."""
    return [re.sub(r"\d\.\d\d\b", "-", line) for line in lines]
