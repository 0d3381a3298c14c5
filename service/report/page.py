"""Pages: HTML files that hold their stylesheet, script and data, and that ask the network for nothing.

The content security policy of a page (https://www.w3.org/TR/CSP3) allows its own stylesheet and script, by
their hashes, pictures in data: URLs, and videos in blob: URLs. All else is refused by the browser, so that
neither a label nor a file name can run as code or load anything. Hence a page has no ``style`` attributes.
"""

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tubelet.service.report.text import clock, printable

_PACKAGE = "tubelet.service.report"


def render_page(template: str, scripts: Sequence[str] = (), **values: object) -> str:
    """Fill in ``template``, which extends ``base.html``, with ``values``.

    ``scripts`` are names of files of this package; joined, they are one module, which runs after the page is
    parsed. Templates escape all values. Data for a script goes through ``tojson`` into
    ``<script type="application/json">``.
    """
    style, script = _source("style.css"), "\n".join(map(_source, scripts))
    policy = (
        "default-src 'none'; img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    parts = {"policy": policy, "style": Markup(style), "script": Markup(script)}
    return _environment().get_template(template).render(**parts, **values)


def render_svg(template: str, **values: object) -> str:
    """Fill in ``template``, which is a whole SVG document, with ``values``; they are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """Return the templates of this package."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "printable": printable}
    return environment


@cache
def _source(name: str) -> str:
    """Return the text of a stylesheet or script of this package."""
    return (files(_PACKAGE) / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """Return the hash by which a policy allows an inline stylesheet or script."""
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"
