"""Apply a scorer by whatever it is known: the model that ``tamis fit`` wrote, a fastText model from
elsewhere, or the name of a stage that measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import AliasChoices, ConfigDict, Field, ValidationError

from tamis.pipeline.errors import RecipeError, nearest
from tamis.pipeline.recipe import nearest_file
from tamis.pipeline.stages import Filter, Measure, Stage
from tamis.registry import is_stage, stage_class, stage_targets
from tamis.scorers.artefact import read_facts

FASTTEXT = (".bin", ".ftz")

Scorer = str | Path | Mapping[str, Any]
"""A model's file or folder, the name of a stage, or ``{stage: settings}``."""


class Score(Stage):
    """Adds scores as columns, by a model or by a stage that measures.

    ``with`` is a model that ``tamis fit`` wrote (the facts beside it say how it is applied), a
    fastText model (.bin, .ftz), the name of a measuring stage (``difficulty``), or a stage with its
    settings: ``{fasttext: {model: dclm.bin, label: hq}}``. ``as`` names the columns:
    ``<as>.score``.

    In Python ``Score(with_=..., name=...)`` gives the stage that does it, and that is the stage
    that a run has: manifest, ``explain`` and report show it with all its settings.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: ClassVar[str] = "score"

    name: str = Field(default="", validation_alias=AliasChoices("as", "name"))
    """The first part of the columns' names."""
    with_: str | Path | dict[str, Any] = Field(alias="with")
    """The scorer."""

    def __new__(cls, **settings: Any) -> Score:
        instance = super().__new__(cls)
        if not settings:
            return instance
        instance.__init__(**settings)  # type: ignore[misc]
        return read_scorer(instance.with_, instance.name)  # type: ignore[return-value]


def read_scorer(scorer: Scorer, name: str) -> Measure:
    """The stage that applies a scorer (see ``Score``), called ``name``.

    Raises:
        RecipeError: if there is no such scorer, its settings are wrong, or the stage does not
            measure or drops documents.
        TamisError: if the facts beside a model are damaged.
    """
    if isinstance(scorer, Mapping):
        if len(scorer) != 1:
            raise RecipeError("with takes one stage with its settings: {fasttext: {model: FILE}}")
        ((kind, settings),) = scorer.items()
        return _build(str(kind), {} if settings is None else settings, name)
    given = str(scorer)
    if isinstance(scorer, str) and is_stage(given) and not Path(given).suffix:
        return _build(given, {}, name)
    path = Path(scorer)
    if not path.exists():
        raise RecipeError(_unknown(given, path))
    facts = read_facts(path)
    if facts is not None:
        return _build(facts.stage, {"model": path, **facts.settings}, name)
    if path.suffix in FASTTEXT:
        return _build("fasttext", {"model": path}, name)
    raise RecipeError(
        f"{path} has no {path.name}.json beside it that says how it is applied; name the stage: "
        f"{{STAGE: {{model: {path}}}}}"
    )


def _unknown(given: str, path: Path) -> str:
    if path.suffix or len(path.parts) > 1:
        return f"there is no model {given}{nearest_file(path)}"
    return f"there is no scorer {given}{nearest(given, measuring_stages())}"


def measuring_stages() -> list[str]:
    """The registered stages that measure and drop nothing."""
    found = []
    for kind in stage_targets():
        try:
            cls = stage_class(kind)
        except RecipeError:
            continue
        if issubclass(cls, Measure) and not issubclass(cls, Filter):
            found.append(kind)
    return found


def _build(kind: str, settings: Any, name: str) -> Measure:
    if not is_stage(kind):
        raise RecipeError(f"there is no scorer {kind}{nearest(kind, measuring_stages())}")
    cls = stage_class(kind)
    if not issubclass(cls, Measure) or issubclass(cls, Filter):
        does = "drops documents" if issubclass(cls, Filter) else "does not measure"
        raise RecipeError(f"{kind} is no scorer: it {does}; use it as a stage of its own")
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{kind} takes a mapping of settings, not {settings!r}")
    try:
        return cls(**{**settings, "name": name or settings.get("name") or Score.kind})
    except ValidationError as error:
        raise RecipeError("; ".join(_problem(kind, cls, one) for one in error.errors())) from None


def _problem(kind: str, cls: type[Stage], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{kind} needs the setting {where}: {{{kind}: {{{where}: ...}}}}"
    if error["type"] == "extra_forbidden":
        return f"{kind}.{where}: there is no such setting{nearest(where, cls.model_fields)}"
    return f"{kind}.{where} = {error['input']!r}: {error['msg']}"
