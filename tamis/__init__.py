"""tamis: curate and select language-model training data, and measure that it helped.

    stages = [tamis.GopherRepetition(), tamis.GopherQuality(min_words=50)]
    tamis.Pipeline(tamis.read("crawl/*.jsonl"), stages, tamis.write("curated")).run(workers=8)

Names are imported when they are first used, so that ``import tamis`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Attributes": "tamis.scorers.attributes",
    "BadWords": "tamis.filters.bad_words",
    "Betr": "tamis.scorers.betr",
    "C4Quality": "tamis.filters.c4_quality",
    "Combine": "tamis.scorers.combine",
    "Decontaminate": "tamis.filters.decontamination",
    "Difficulty": "tamis.scorers.difficulty",
    "Documents": "tamis.pipeline.documents",
    "Dsir": "tamis.scorers.dsir",
    "ExactDedup": "tamis.filters.dedup.exact",
    "Expand": "tamis.pipeline.stages",
    "Filter": "tamis.pipeline.stages",
    "Extract": "tamis.filters.extraction",
    "FastText": "tamis.scorers.fasttext",
    "FineWebQuality": "tamis.filters.fineweb_quality",
    "Fitted": "tamis.pipeline.stages",
    "GopherQuality": "tamis.filters.gopher_quality",
    "GopherRepetition": "tamis.filters.gopher_repetition",
    "HttpResponse": "tamis.filters.http_response",
    "IdentifyLanguage": "tamis.filters.language",
    "Keeps": "tamis.pipeline.adapters.tables",
    "Language": "tamis.filters.language",
    "LineRepairs": "tamis.filters.line_repairs",
    "Measure": "tamis.pipeline.stages",
    "MinHash": "tamis.filters.dedup.minhash",
    "ParagraphDedup": "tamis.filters.dedup.paragraphs",
    "Perplexity": "tamis.scorers.perplexity",
    "Pii": "tamis.filters.pii",
    "Pipeline": "tamis.pipeline.pipeline",
    "PredictiveStrength": "tamis.scorers.predictive_strength",
    "Quality": "tamis.scorers.quality",
    "ProX": "tamis.filters.refine.stage",
    "Quantity": "tamis.pipeline.stages",
    "RecipeError": "tamis.pipeline.errors",
    "Refine": "tamis.pipeline.stages",
    "Rule": "tamis.pipeline.stages",
    "Run": "tamis.pipeline.pipeline",
    "Score": "tamis.scorers.score",
    "ScoreToxicity": "tamis.filters.toxicity",
    "Select": "tamis.scorers.select",
    "SemanticDedup": "tamis.filters.dedup.semantic",
    "SubstringDedup": "tamis.filters.dedup.substring",
    "TamisError": "tamis.pipeline.errors",
    "ToxicWords": "tamis.filters.toxicity",
    "Toxicity": "tamis.filters.toxicity",
    "Unicode": "tamis.filters.unicode",
    "Url": "tamis.filters.url",
    "UrlDedup": "tamis.filters.dedup.url",
    "explain": "tamis.pipeline.explain",
    "filter": "tamis.pipeline.adapters.functions",
    "from_datatrove": "tamis.pipeline.adapters.datatrove",
    "measure": "tamis.pipeline.adapters.functions",
    "read": "tamis.pipeline.pipeline",
    "refine": "tamis.pipeline.adapters.functions",
    "retune": "tamis.pipeline.retune",
    "to_datatrove": "tamis.pipeline.adapters.datatrove",
    "write": "tamis.pipeline.pipeline",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from tamis.filters.bad_words import BadWords as BadWords
    from tamis.filters.c4_quality import C4Quality as C4Quality
    from tamis.filters.decontamination import Decontaminate as Decontaminate
    from tamis.filters.dedup.exact import ExactDedup as ExactDedup
    from tamis.filters.dedup.minhash import MinHash as MinHash
    from tamis.filters.dedup.paragraphs import ParagraphDedup as ParagraphDedup
    from tamis.filters.dedup.semantic import SemanticDedup as SemanticDedup
    from tamis.filters.dedup.substring import SubstringDedup as SubstringDedup
    from tamis.filters.dedup.url import UrlDedup as UrlDedup
    from tamis.filters.extraction import Extract as Extract
    from tamis.filters.fineweb_quality import FineWebQuality as FineWebQuality
    from tamis.filters.gopher_quality import GopherQuality as GopherQuality
    from tamis.filters.gopher_repetition import GopherRepetition as GopherRepetition
    from tamis.filters.http_response import HttpResponse as HttpResponse
    from tamis.filters.language import IdentifyLanguage as IdentifyLanguage
    from tamis.filters.language import Language as Language
    from tamis.filters.line_repairs import LineRepairs as LineRepairs
    from tamis.filters.pii import Pii as Pii
    from tamis.filters.refine.stage import ProX as ProX
    from tamis.filters.toxicity import ScoreToxicity as ScoreToxicity
    from tamis.filters.toxicity import Toxicity as Toxicity
    from tamis.filters.toxicity import ToxicWords as ToxicWords
    from tamis.filters.unicode import Unicode as Unicode
    from tamis.filters.url import Url as Url
    from tamis.pipeline.adapters.datatrove import from_datatrove as from_datatrove
    from tamis.pipeline.adapters.datatrove import to_datatrove as to_datatrove
    from tamis.pipeline.adapters.functions import filter as filter
    from tamis.pipeline.adapters.functions import measure as measure
    from tamis.pipeline.adapters.functions import refine as refine
    from tamis.pipeline.adapters.tables import Keeps as Keeps
    from tamis.pipeline.documents import Documents as Documents
    from tamis.pipeline.errors import RecipeError as RecipeError
    from tamis.pipeline.errors import TamisError as TamisError
    from tamis.pipeline.explain import explain as explain
    from tamis.pipeline.pipeline import Pipeline as Pipeline
    from tamis.pipeline.pipeline import Run as Run
    from tamis.pipeline.pipeline import read as read
    from tamis.pipeline.pipeline import write as write
    from tamis.pipeline.retune import retune as retune
    from tamis.pipeline.stages import Expand as Expand
    from tamis.pipeline.stages import Filter as Filter
    from tamis.pipeline.stages import Fitted as Fitted
    from tamis.pipeline.stages import Measure as Measure
    from tamis.pipeline.stages import Quantity as Quantity
    from tamis.pipeline.stages import Refine as Refine
    from tamis.pipeline.stages import Rule as Rule
    from tamis.scorers.attributes import Attributes as Attributes
    from tamis.scorers.betr import Betr as Betr
    from tamis.scorers.combine import Combine as Combine
    from tamis.scorers.difficulty import Difficulty as Difficulty
    from tamis.scorers.dsir import Dsir as Dsir
    from tamis.scorers.fasttext import FastText as FastText
    from tamis.scorers.perplexity import Perplexity as Perplexity
    from tamis.scorers.predictive_strength import PredictiveStrength as PredictiveStrength
    from tamis.scorers.quality import Quality as Quality
    from tamis.scorers.score import Score as Score
    from tamis.scorers.select import Select as Select


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tamis' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
