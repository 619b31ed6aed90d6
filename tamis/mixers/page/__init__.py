"""The page of ``tamis mix``: one HTML file that needs nothing else.

``contents`` decides what is said, ``drawings`` where its marks stand; the frame, its style and how
numbers are written are those of the report of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tamis.mixers.page.contents import contents
from tamis.pipeline.report.html import fill

if TYPE_CHECKING:
    from tamis.mixers.mix import Mixed


def render(mixed: Mixed, settings: Mapping[str, Any]) -> str:
    """The page of an answer; ``settings`` are those that it was found with, as JSON."""
    return fill(__name__, contents(mixed, settings), ("mix.css",))
