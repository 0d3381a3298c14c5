"""The image: what it holds, and who runs it."""

import re
import subprocess
import tomllib
from pathlib import Path

from tests.support.container_image import ROOT, containerfile, project, user


def test_image_holds_all_packages_of_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    links = [
        each for package in wheel["packages"] for each in (ROOT / package).iterdir() if each.is_symlink()
    ]
    behind_links = {str(link.resolve().relative_to(ROOT)) for link in links}
    assert behind_links
    needed = {*wheel["packages"], *behind_links, "pyproject.toml", project()["readme"]}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", containerfile(), re.M)
        for source in line.split()[:-1]
    }
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied == needed
    assert let_through == needed


def test_image_runs_as_a_numbered_user_other_than_root() -> None:
    assert min(user()) > 0


def test_login_shells_find_the_programs_of_the_image(tmp_path: Path) -> None:
    by_root = containerfile().partition("\nUSER ")[0]
    ((command, profile),) = re.findall(r"^RUN (.* > (/etc/profile\.d/\S+\.sh))$", by_root, re.M)
    (folder,) = re.findall(r"^ENV PATH=(.*?):\$PATH", containerfile(), re.M)
    script = tmp_path / "profile.sh"
    subprocess.run(["sh", "-c", command.replace(profile, str(script))], check=True)
    # As Debian's /etc/profile does for users other than root.
    login = f"PATH=/usr/local/bin:/usr/bin:/bin; export PATH; . {script}; env"
    done = subprocess.run(["bash", "-c", login], capture_output=True, text=True, check=True)
    assert f"PATH={folder}:/usr/local/bin:/usr/bin:/bin" in done.stdout.splitlines()
