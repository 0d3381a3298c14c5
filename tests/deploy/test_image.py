"""The image: what it holds, and who runs it."""

import re
import tomllib

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
    let_through = {
        line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert copied == needed
    assert let_through == needed


def test_image_runs_as_a_numbered_user_other_than_root() -> None:
    assert min(user()) > 0
