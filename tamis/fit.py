"""What ``tamis fit METHOD CONFIG`` trains: one file a method.

A method is a pydantic model whose fields are its configuration; ``fit`` trains, writes the file or
folder ``output``, and returns what to print. It is made known by one line in METHODS; one of the
user's own is named as ``module:Class``.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import BaseModel, ConfigDict

from tamis.pipeline.errors import RecipeError, nearest
from tamis.pipeline.recipe import load_settings
from tamis.registry import import_named

METHODS = {
    "annotations": "tamis.scorers.annotate:FitAnnotations",
    "betr": "tamis.scorers.betr:FitBetr",
    "dsir": "tamis.scorers.dsir:FitDsir",
    "fasttext": "tamis.scorers.fasttext_fit:FitFastText",
    "perplexity": "tamis.scorers.perplexity_fit:FitPerplexity",
    "perplexity_correlations": "tamis.scorers.perplexity_correlations:FitPerplexityCorrelations",
    "preselect": "tamis.scorers.preselect:FitPreSelect",
    "quality": "tamis.scorers.quality:FitQuality",
    "refiner": "tamis.filters.refine.fit:FitRefiner",
    "toxicity": "tamis.filters.toxicity.fit:FitToxicity",
}
VARIANTS = {("refiner", "generate"): "tamis.trainers.refiner:FitGenerator"}
"""Of methods whose configuration says ``method``."""


class Fit(BaseModel):
    """The configuration of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    """The method's name."""
    output: Path
    """Where the trained model goes."""

    @abstractmethod
    def fit(self) -> str:
        """Train and write ``output``; what was learned, for the user to read.

        Raises:
            TamisError: if the data does not allow it, in one sentence.
        """


def fit(method: str, config: str | Path) -> str:
    """Train with the settings of a YAML file; gives what to print.

    Raises:
        RecipeError: if there is no such method, or a setting is wrong.
        TamisError: if the data does not allow it.
    """
    variant = VARIANTS.get((method, _said_method(config)))
    return load_settings(config, _known(variant) if variant else _method(method)).fit()


def _said_method(config: str | Path) -> str:
    """What a configuration says under ``method``; nothing if it cannot be read, which
    ``load_settings`` says better.
    """
    try:
        plain = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(plain.get("method", "")) if isinstance(plain, dict) else ""


def _known(target: str) -> type[Fit]:
    module, _, attribute = target.partition(":")
    found: type[Fit] = getattr(import_module(module), attribute)
    return found


def _method(name: str) -> type[Fit]:
    """The class of a method in METHODS, or of the user's own as ``module:Class``."""
    if name in METHODS:
        return _known(METHODS[name])
    if ":" not in name:
        raise RecipeError(f"there is nothing to fit called {name}{nearest(name, METHODS)}")
    found = import_named(name, name)
    if not (isinstance(found, type) and issubclass(found, Fit)):
        raise RecipeError(f"{name} cannot be fitted: it is no class of tamis.fit.Fit")
    return found
