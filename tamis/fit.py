"""What ``tamis fit METHOD CONFIG`` trains: one file a method.

A method is a pydantic model whose fields are its configuration; ``fit`` trains, writes the file or
folder ``output``, and returns what to print. It is made known by one line in METHODS.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from tamis.pipeline.errors import RecipeError, nearest
from tamis.pipeline.recipe import load_settings

METHODS = {
    "betr": "tamis.scorers.betr:FitBetr",
    "dsir": "tamis.scorers.dsir:FitDsir",
    "fasttext": "tamis.scorers.fasttext_fit:FitFastText",
    "perplexity": "tamis.scorers.perplexity_fit:FitPerplexity",
    "preselect": "tamis.scorers.preselect:FitPreSelect",
    "toxicity": "tamis.filters.toxicity.fit:FitToxicity",
}


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
    if method not in METHODS:
        raise RecipeError(f"there is nothing to fit called {method}{nearest(method, METHODS)}")
    module, _, name = METHODS[method].partition(":")
    cls: type[Fit] = getattr(import_module(module), name)
    return load_settings(config, cls).fit()
