"""What ``tamis fit`` leaves beside a trained scorer: which stage applies it, with which settings,
and how it was made.

``models/edu.bin`` has its facts in ``models/edu.bin.json``:

    {"stage": "fasttext", "settings": {"label": "hq"}, "made_by": "tamis 0.1.0",
     "recipe": {"method": "betr", ...}, "facts": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tamis
from tamis.fit import Fit
from tamis.pipeline.errors import TamisError


class Artefact(NamedTuple):
    """How a trained scorer is used, and how it came about."""

    stage: str
    """The kind of the stage that applies it; its setting ``model`` is the file or folder."""
    settings: Mapping[str, Any]
    """The other settings of that stage."""
    recipe: Mapping[str, Any]
    """The method and configuration of the training."""
    facts: Mapping[str, Any]
    """What was measured while it was trained."""


def facts_path(model: Path) -> Path:
    """Where the facts of a model lie: beside it."""
    return model.with_name(model.name + ".json")


def write_facts(
    model: Path, stage: str, settings: Mapping[str, Any], made: Fit, facts: Mapping[str, Any]
) -> None:
    """Write the facts of a model that ``made`` has trained.

    Raises:
        TamisError: if they cannot be written.
    """
    content = {
        "stage": stage,
        "settings": dict(settings),
        "made_by": f"tamis {tamis.__version__}",
        "recipe": {"method": made.kind, **made.model_dump(mode="json", by_alias=True)},
        "facts": dict(facts),
    }
    path = facts_path(model)
    try:
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise TamisError(f"{path} cannot be written: {error.strerror}") from error


def read_facts(model: Path) -> Artefact | None:
    """The facts of a model; None if there are none, as for a model from elsewhere.

    Raises:
        TamisError: if the file is damaged.
    """
    path = facts_path(model)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TamisError(f"{path} cannot be read: {error}") from error
    try:
        return Artefact(
            *(str(content["stage"]), dict(content["settings"])),
            *(dict(content["recipe"]), dict(content["facts"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TamisError(f"{path} does not say how its model is used: {error}") from error
