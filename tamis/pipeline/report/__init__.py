"""The report of a run: one HTML page that needs nothing else, made from the manifest alone.

Everything in a manifest that comes from data or recipe is hostile: all of it is escaped, bounded
and made visible, and the page's Content-Security-Policy allows its own style sheet and script, by
their hashes, and nothing else.

``view`` decides what is shown, ``histogram`` and ``changes`` shape drawings and diffs, ``figures``
writes numbers and text, and ``page.html.j2`` with ``page.css`` and ``page.js`` is the page.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tamis.pipeline.report import figures, histogram, view


def render(manifest: Mapping[str, Any]) -> str:
    """The page, the same for the same manifest; a part whose keys are absent is left out."""
    template, style, script = _template()
    return template.render(
        view.page(manifest),
        style=Markup(style),  # noqa: S704  our own file, not data
        script=Markup(script),  # noqa: S704  our own file, not data
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def write_report(manifest: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page to ``path`` (UTF-8); the file appears whole or not at all."""
    target = Path(path)
    html = render(manifest)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(html)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


@cache
def _template() -> tuple[jinja2.Template, str, str]:
    """The compiled template, and the style sheet and script as they stand in the page."""
    folder = files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "value", "percent", "size", "duration", "moment", "shown"):
        environment.filters[name] = getattr(figures, name)
    environment.globals.update(rate=figures.rate, chart=histogram)
    style = (folder / "page.css").read_text("utf-8")
    script = (folder / "page.js").read_text("utf-8")
    return environment.get_template("page.html.j2"), style, script


def _finalize(value: Any) -> Any:
    """Bound every string that the template prints, and show its invisible characters."""
    if value is None:
        return figures.ABSENT
    if isinstance(value, (Markup, int, float)):
        return value
    return figures.plain(str(value))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
