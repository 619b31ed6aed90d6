"""The stages by their name in a recipe. A new stage is one new file and one line here.

Names map to ``module:class`` and are imported when a recipe uses them. Packages of yours can add
stages through the entry point group ``tamis.stages``, and a recipe can name any stage as
``module:name``.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tamis.pipeline.errors import RecipeError, TamisError

if TYPE_CHECKING:
    from tamis.pipeline.stages import Stage

STAGES = {
    "attributes": "tamis.scorers.attributes:Attributes",
    "bad_words": "tamis.filters.bad_words:BadWords",
    "betr": "tamis.scorers.betr:Betr",
    "c4_quality": "tamis.filters.c4_quality:C4Quality",
    "combine": "tamis.scorers.combine:Combine",
    "datatrove": "tamis.pipeline.adapters.datatrove:Datatrove",
    "decontaminate": "tamis.filters.decontamination:Decontaminate",
    "difficulty": "tamis.scorers.difficulty:Difficulty",
    "dsir": "tamis.scorers.dsir:Dsir",
    "exact_dedup": "tamis.filters.dedup.exact:ExactDedup",
    "extract": "tamis.filters.extraction:Extract",
    "fasttext": "tamis.scorers.fasttext:FastText",
    "fineweb_quality": "tamis.filters.fineweb_quality:FineWebQuality",
    "gopher_quality": "tamis.filters.gopher_quality:GopherQuality",
    "gopher_repetition": "tamis.filters.gopher_repetition:GopherRepetition",
    "identify_language": "tamis.filters.language:IdentifyLanguage",
    "language": "tamis.filters.language:Language",
    "line_repairs": "tamis.filters.line_repairs:LineRepairs",
    "http_response": "tamis.filters.http_response:HttpResponse",
    "minhash": "tamis.filters.dedup.minhash:MinHash",
    "pii": "tamis.filters.pii:Pii",
    "paragraph_dedup": "tamis.filters.dedup.paragraphs:ParagraphDedup",
    "perplexity": "tamis.scorers.perplexity:Perplexity",
    "predictive_strength": "tamis.scorers.predictive_strength:PredictiveStrength",
    "score": "tamis.scorers.score:Score",
    "quality": "tamis.scorers.quality:Quality",
    "refine": "tamis.filters.refine.stage:ProX",
    "score_toxicity": "tamis.filters.toxicity:ScoreToxicity",
    "select": "tamis.scorers.select:Select",
    "semantic_dedup": "tamis.filters.dedup.semantic:SemanticDedup",
    "substring_dedup": "tamis.filters.dedup.substring:SubstringDedup",
    "toxic_words": "tamis.filters.toxicity:ToxicWords",
    "toxicity": "tamis.filters.toxicity:Toxicity",
    "unicode": "tamis.filters.unicode:Unicode",
    "url": "tamis.filters.url:Url",
    "url_dedup": "tamis.filters.dedup.url:UrlDedup",
}


DEFINED: dict[str, type[Stage]] = {}
"""Stage classes of this process by kind, those of the user's own code included."""


@cache
def plugins() -> dict[str, list[EntryPoint]]:
    """The entry points of installed packages by name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group="tamis.stages"):
        same = found.setdefault(entry.name, [])
        if all((one.value, _package(one)) != (entry.value, _package(entry)) for one in same):
            same.append(entry)
    return found


@cache
def stage_targets() -> dict[str, str]:
    """Where the classes of stages are, those of installed plug-ins included."""
    return {name: entries[0].value for name, entries in plugins().items()} | STAGES


def stage_kinds() -> list[str]:
    """The names of all stages that a recipe may use here."""
    return sorted({*stage_targets(), *DEFINED})


def is_stage(kind: str) -> bool:
    """Whether a recipe may use the name: a registered one, or ``module:name`` (which may turn out
    not to be there).
    """
    return ":" in kind or kind in stage_kinds()


def stage_class(kind: str) -> type[Stage]:
    """The class of a stage; KeyError for a name that nobody registered.

    Raises:
        RecipeError: if two packages give a stage of this name, or what is to be found under it
            cannot be imported or is no stage.
    """
    if kind in plugins():
        return _plugin(kind)
    if kind in STAGES:
        module, _, attribute = STAGES[kind].partition(":")
        found: type[Stage] = getattr(import_module(module), attribute)
        return found
    if kind in DEFINED:
        return DEFINED[kind]
    if ":" not in kind:
        raise KeyError(kind)
    return _checked(kind, kind, kind)


def _plugin(kind: str) -> type[Stage]:
    entries = plugins()[kind]
    owners = [f"{_package(one)} ({one.value})" for one in entries]
    if kind in STAGES:
        owners.insert(0, f"tamis ({STAGES[kind]})")
    if len(owners) > 1:
        raise RecipeError(
            f"there are several stages called {kind}: of {' and of '.join(owners)}; remove one of "
            "the packages, or name the stage in the recipe as module:name"
        )
    return _checked(entries[0].value, kind, f"the stage {kind} of the package {owners[0]}")


def _checked(target: str, kind: str, what: str) -> type[Stage]:
    """The class at ``module:name``; ``kind`` is the name by which it was asked for."""
    from tamis.pipeline.stages import Stage

    found = import_named(target, what)
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise RecipeError(
            f"{what} is no stage: make one of a function with @tamis.measure, @tamis.filter or "
            "@tamis.refine"
        )
    # Runs note the kind, and look the class up by it later.
    if getattr(found, "kind", None) not in (kind, target):
        raise RecipeError(
            f"{what} has the kind {getattr(found, 'kind', None)}, by which runs would not find it "
            f'again; write kind = "{kind}" in its class'
        )
    return found


def import_named(target: str, what: str) -> Any:
    """What is to be found at ``module:name``.

    Raises:
        RecipeError: if it cannot be imported, or its module raises; ``what`` is asked for.
    """
    module, _, attribute = target.partition(":")
    try:
        found: Any = import_local(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{what} cannot be imported: {error}") from None
    except TamisError:
        raise
    except Exception as error:
        # A module of the user's may raise anything.
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(f"{what} cannot be imported: {reason}") from error
    return found


def import_local(name: str) -> ModuleType:
    """A module, also one in the folder where the command was started."""
    here = str(Path.cwd())
    if find_spec(name.partition(".")[0]) is None and here not in sys.path:
        sys.path.append(here)
        invalidate_caches()
    return import_module(name)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unnamed package"
