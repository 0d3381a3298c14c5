"""``tubelet serve`` reloads models and configuration on SIGHUP, while it answers."""

import os
import re
import shutil
import signal
from pathlib import Path
from time import sleep

from tests.support.cli_process import serving
from tubelet.models.repository.repository import ZOO
from tubelet.service.client import Client, Options


def test_serve_reloads_models_on_sighup_while_it_answers(video: Path, tmp_path: Path) -> None:
    """No request fails, and the new version answers the next ones."""
    folder = tmp_path / "store" / "camera-motion" / "99"
    (tmp_path / "store").mkdir()
    with (
        serving(TUBELET_MODELS__STORE=str(tmp_path / "store")) as (process, target),
        Client(target) as client,
    ):

        def answers_until(version: str) -> None:
            while True:
                answer = client.classify(str(video))
                assert answer.labels[0].name == "pan_right"
                if answer.version == version:
                    return

        old = client.classify(str(video)).version
        shutil.copytree(ZOO / "camera-motion", folder)
        spec = folder / "model.toml"
        spec.write_text(spec.read_text().replace(f'version = "{old}"', 'version = "99"'))
        process.send_signal(signal.SIGHUP)
        answers_until("99")
        shutil.rmtree(folder)
        process.send_signal(signal.SIGHUP)
        answers_until(old)


def test_serve_rolls_back_a_version_on_sighup(video: Path, tmp_path: Path) -> None:
    """A pin to a missing version is one line in the log, and changes nothing."""
    config, store, log = tmp_path / "tubelet.toml", tmp_path / "store", tmp_path / "log"
    for version in ("1", "2"):
        folder = store / "camera-motion" / version
        shutil.copytree(ZOO / "camera-motion", folder)
        spec = folder / "model.toml"
        spec.write_text(re.sub('version = ".*"', f'version = "{version}"', spec.read_text(), count=1))
    config.write_text("[models]\ndefault = 'camera-motion:2'\n")

    def pin(version: str, says: str) -> str:
        before = log.read_text()
        config.write_text(f"[models]\ndefault = 'camera-motion:{version}'\n")
        process.send_signal(signal.SIGHUP)
        while says not in (said := log.read_text().removeprefix(before)):
            assert process.poll() is None
            sleep(0.05)
        return said

    with (
        log.open("w") as file,
        serving("--config", str(config), log=file, TUBELET_MODELS__STORE=str(store)) as (process, target),
        Client(target) as client,
    ):
        assert client.classify(str(video)).version == "2"
        pin("1", "model reload complete")
        assert client.classify(str(video)).version == "1"
        assert client.classify(str(video), Options(model="camera-motion")).version == "1"
        assert client.classify(str(video), Options(model="camera-motion:2")).version == "2"
        said = pin("3", "stay as they were")
        assert said.count("ERROR") == 1
        assert "no model 'camera-motion:3' in the store; it has camera-motion:1, " in said
        assert client.classify(str(video)).version == "1"


def test_serve_ends_on_sigterm_while_a_model_loads(tmp_path: Path) -> None:
    """Reading its weights never ends, as on a network that is gone."""
    folder = tmp_path / "store" / "camera-motion" / "99"
    (tmp_path / "store").mkdir()
    with serving(TUBELET_MODELS__STORE=str(tmp_path / "store")) as (process, _):
        shutil.copytree(ZOO / "camera-motion", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        os.mkfifo(folder / "weights.safetensors")
        spec = folder / "model.toml"
        spec.write_text(re.sub('version = ".*"', 'version = "99"', spec.read_text(), count=1))
        process.send_signal(signal.SIGHUP)
        weights = (folder / "weights.safetensors").open("wb")  # once somebody reads them
    weights.close()


def test_invalid_configuration_on_sighup_is_logged_line_by_line(tmp_path: Path) -> None:
    config, log = tmp_path / "tubelet.toml", tmp_path / "log"
    config.touch()
    with log.open("w") as file, serving("--config", str(config), log=file) as (process, _):
        before = log.read_text()
        config.write_text("[server]\nretry_after_s = 3\n")
        process.send_signal(signal.SIGHUP)
        says = "only [models] changes without a restart; unchanged: server"
        while says not in log.read_text() or "model reload complete" not in log.read_text():
            assert process.poll() is None
        before = log.read_text()
        config.write_text("[models]\ndefalt = 'a'\nload = 3\n")
        process.send_signal(signal.SIGHUP)
        said = ""
        while said.count("stay as they were") < 2:
            assert process.poll() is None
            said = log.read_text().removeprefix(before)
            sleep(0.05)
    assert [line.partition(": ")[2] for line in said.splitlines()] == [
        "reloading the models",
        "the models stay as they were: models.load: Input should be a list; found 3",
        "the models stay as they were: models.defalt: no such key (closest: models.default)",
    ]
