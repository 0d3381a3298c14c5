"""What is read from files again, by the file of identities: each look, and looks at the same time."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from tests.support.identities import TABLES, TOKENS, write_identities
from tubelet.service.metrics import Metrics
from tubelet.service.server.identities import IdentitiesFile


async def test_a_wrong_file_is_logged_once_however_often_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_identities(tmp_path / "identities.toml")
    async with IdentitiesFile(file, Metrics()) as identities:
        before = identities.current()
        caplog.set_level(logging.ERROR)
        write_identities(file, "[a")
        for _ in range(3):
            await identities.reload()
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        assert identities.current() is before


async def test_looks_at_the_same_time_agree_on_the_new_file(tmp_path: Path) -> None:
    file = write_identities(tmp_path / "identities.toml")
    async with IdentitiesFile(file, Metrics()) as identities:
        write_identities(file, TABLES.replace("{alice}", "{mallory}"))
        await asyncio.gather(*(identities.reload() for _ in range(20)))
        assert identities.current().of_token(TOKENS["mallory"]) is not None
        assert identities.current().of_token(TOKENS["alice"]) is None


async def test_a_pipe_stops_no_later_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A read of it would wait for a writer, and hold up the end of the server, too."""
    file = write_identities(tmp_path / "identities.toml")
    async with IdentitiesFile(file, Metrics()) as identities:
        file.unlink()
        os.mkfifo(file)
        await asyncio.wait_for(identities.reload(), 30)
        assert "cannot read" in caplog.text
        assert "it is no regular file" in caplog.text
        file.unlink()
        write_identities(file, TABLES.replace("{alice}", "{mallory}"))
        await identities.reload()
        assert identities.current().of_token(TOKENS["mallory"]) is not None
