"""``tamis fit refiner CONFIG``: the compact refiner, from documents and somebody's labels; with
``method: generate`` a language model (``tamis.trainers.refiner``).

    data: [documents.jsonl.gz]
    labels: [planted, teacher]
    output: models/refiner.npz

``labels`` says where they come from: ``planted`` (noise is planted in the documents, cleaned by the
teacher before), ``teacher`` (rules that see all pages of a site), ``program`` (programs that are in
the data) or ``annotator`` (a language model is asked). Sites are held out as a whole and measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

import tamis
from tamis.filters.refine.annotator import annotate
from tamis.filters.refine.embedded import (
    HIGHEST_BITS,
    LOWEST_BITS,
    CompactRefiner,
    Lessons,
    train,
)
from tamis.filters.refine.executor import execute, keeps
from tamis.filters.refine.line_features import ADDRESS, KEEP, REMOVE
from tamis.filters.refine.line_programs import addresses, removed_lines, replaced_lines
from tamis.filters.refine.noise import Source, plant
from tamis.filters.refine.quality import Gold, format_quality, measure_programs
from tamis.filters.refine.teacher import SitePage, teach
from tamis.fit import Fit
from tamis.generation.setting import Generation
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.readers.json_lines import json_lines

Labels = Literal["planted", "teacher", "program", "annotator"]
FEWEST = 20
"""Pages to learn from, and to measure on."""


class Example(NamedTuple):
    """A page and its gold programs."""

    gold: Gold
    labels: tuple[int, ...]
    """KEEP, REMOVE or ADDRESS of each line."""
    kind: Labels
    held_out: bool


class _Record(NamedTuple):
    text: str
    site: str
    language: str
    program: str
    document_program: str


class RefinerData(Fit):
    """Where the examples of a refiner come from; shared by all kinds of refiners."""

    data: tuple[str, ...] = Field(min_length=1)
    """JSONL files (.gz, .zst, .bz2 too), local or any fsspec URL."""
    labels: tuple[Labels, ...] = Field(default=("planted", "teacher"), min_length=1)
    """Where labels come from; several give the examples of each."""
    text: str = "text"
    """Key of the text."""
    site: str = "url"
    """Key of the site: an address, of which the host counts, or a name. Documents without one are
    sites of their own.
    """
    language: str = "lang"
    """Key of the language (en, de, fr, es, ru, zh, ja) in which noise is planted; en without it."""
    leave_out: str | None = None
    """Documents that have something under this key are left out."""
    program: str = "program"
    """Key of the chunk program, for labels: [program]."""
    document_program: str = "document_program"
    """Key of the document program, for labels: [program]; keep_doc() where there is none."""
    generator: Generation | None = None
    """The language model that is asked, for labels: [annotator]."""
    cache: str | bool = True
    """The folder of its answers; true for ~/.cache/tamis/answers, false to keep none."""
    pages: int | None = Field(default=None, ge=1)
    """So many documents, drawn with ``seed``; null for all of them."""
    sites: int = Field(default=200, ge=1, le=10_000)
    """How many web sites noise is planted for, and a third as many to be held out."""
    copies: int = Field(default=4, ge=1, le=100)
    """How often noise is planted in a document to learn from."""
    held_out: float | tuple[str, ...] = 0.25
    """The part of the sites of the data that is held out, or their names."""
    seed: int = Field(default=0, ge=0)

    def model_post_init(self, context: object, /) -> None:
        if not isinstance(self.held_out, tuple) and not 0 < self.held_out < 1:
            raise RecipeError(f"held_out = {self.held_out}: a part lies between 0 and 1")
        if "annotator" in self.labels and self.generator is None:
            raise RecipeError("labels: [annotator] needs a generator: {openai: {...}}")

    def examples(self) -> list[Example]:
        """All examples, in the order of ``labels`` and of the data.

        Raises:
            TamisError: if a file cannot be read, a key is missing, or there is too little.
        """
        records = self._records()
        held = self._held_out_sites(records)
        makers: dict[Labels, Callable[[list[_Record], set[str]], list[Example]]] = {
            "planted": self._planted,
            "teacher": self._taught,
            "program": self._given,
            "annotator": self._annotated,
        }
        found = [one for kind in dict.fromkeys(self.labels) for one in makers[kind](records, held)]
        for held_out, use in ((False, "to learn from"), (True, "to measure on")):
            count = sum(one.held_out == held_out for one in found)
            if count < FEWEST:
                raise TamisError(
                    f"there are {count} pages {use}, it takes {FEWEST}: more data, or other sites "
                    "in held_out"
                )
        return found

    def _records(self) -> list[_Record]:
        records = []
        for place, record in chain.from_iterable(map(json_lines, self.data)):
            text = record.get(self.text)
            if not isinstance(text, str):
                raise TamisError(f"{place}: no text under {self.text}{nearest(self.text, record)}")
            program = record.get(self.program)
            if "program" in self.labels and not isinstance(program, str):
                raise TamisError(
                    f"{place}: no program under {self.program}{nearest(self.program, record)}"
                )
            left_out = self.leave_out is not None and record.get(self.leave_out)
            if text.strip() and not left_out:
                site = _site(record.get(self.site)) or xxhash.xxh3_64_hexdigest(
                    text.encode("utf-8", "surrogatepass")
                )
                language, document = record.get(self.language), record.get(self.document_program)
                records.append(
                    _Record(text, site, str(language or "en"), str(program), str(document or ""))
                )
        if self.pages is not None and self.pages < len(records):
            random = np.random.default_rng(self.seed)
            rows = np.sort(random.choice(len(records), self.pages, replace=False))
            records = [records[row] for row in rows]
        return records

    def _held_out_sites(self, records: Sequence[_Record]) -> set[str]:
        sites = {one.site for one in records}
        if isinstance(self.held_out, tuple):
            for name in self.held_out:
                if name not in sites:
                    raise TamisError(f"held_out: there is no site {name}{nearest(name, sites)}")
            return set(self.held_out)
        ordered = sorted(sites, key=lambda one: xxhash.xxh3_64_intdigest(one, self.seed))
        return set(ordered[: max(1, round(self.held_out * len(ordered)))])

    def _planted(self, records: list[_Record], held: set[str]) -> list[Example]:
        """Noise in what the teacher leaves of the documents."""
        lessons = teach([SitePage(one.text, one.site) for one in records])
        sources: defaultdict[bool, list[Source]] = defaultdict(list)
        for record, lesson in zip(records, lessons, strict=True):
            clean = execute(record.text, lesson.program) if lesson.keep else None
            if clean:
                sources[record.site in held].append(Source(clean, record.language))
        return [
            Example(Gold(page.text, page.program, page.keep), page.labels, "planted", held_out)
            for held_out, sites, copies in (
                (False, self.sites, self.copies),
                (True, max(1, self.sites // 3), 1),
            )
            for page in plant(sources[held_out] * copies, sites, held_out, self.seed)
        ]

    def _taught(self, records: list[_Record], held: set[str]) -> list[Example]:
        lessons = teach([SitePage(one.text, one.site) for one in records])
        return [
            Example(
                Gold(record.text, lesson.program, lesson.keep),
                lesson.labels,
                "teacher",
                record.site in held,
            )
            for record, lesson in zip(records, lessons, strict=True)
        ]

    def _given(self, records: list[_Record], held: set[str]) -> list[Example]:
        return [
            _example(one, one.program, keeps(one.document_program), "program", one.site in held)
            for one in records
        ]

    def _annotated(self, records: list[_Record], held: set[str]) -> list[Example]:
        assert self.generator is not None
        found = annotate(self.generator, [one.text for one in records], self.cache)
        return [
            _example(record, one.program, one.keep, "annotator", record.site in held)
            for record, one in zip(records, found, strict=True)
            if one is not None
        ]


class FitRefiner(RefinerData):
    """Trains the compact refiner: a line tagger with a document head."""

    kind: ClassVar[str] = "refiner"

    method: Literal["tagger", "generate"] = "tagger"
    """``generate`` tunes a language model instead, with other settings: see
    ``tamis.trainers.refiner``."""
    bits: int = Field(default=16, ge=LOWEST_BITS, le=HIGHEST_BITS)
    """Features of lines are hashed to 2^bits buckets; the file has 6 bytes a bucket before
    compression.
    """
    document_bits: int = Field(default=12, ge=LOWEST_BITS, le=HIGHEST_BITS)
    epochs: int = Field(default=3, ge=1, le=1000)
    learning_rate: float = Field(default=0.05, gt=0, le=10)
    unseen: float = Field(default=0.6, ge=0, lt=1)
    """The part of the lines that are learned from as if their words were not known, so that shape
    and place are learned, too.
    """
    lean_to_removing: float = 1.0
    """Added to the log-odds of removing a line: above 0 for recall, below for precision."""
    lean_to_dropping: float = -2.0
    """The same of dropping a document, which costs more if it is wrong."""
    about: str = ""
    """Kept in the model: what the data is, under which licence."""

    def model_post_init(self, context: object, /) -> None:
        super().model_post_init(context)
        if self.method == "generate":
            raise RecipeError("method: generate is tamis.trainers.refiner.FitGenerator in Python")
        if self.output.suffix != ".npz":
            raise RecipeError(f"output = {self.output}: the name of a refiner ends in .npz")

    def fit(self) -> str:
        examples = self.examples()
        learned = [one for one in examples if not one.held_out]
        weights = train(
            lessons_of(learned),
            bits=self.bits,
            document_bits=self.document_bits,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            unseen=self.unseen,
            seed=self.seed,
        )
        refiner = CompactRefiner(weights, (self.lean_to_removing, self.lean_to_dropping), {})
        quality = {}
        for kind in dict.fromkeys(self.labels):
            held = [one for one in examples if one.held_out and one.kind == kind]
            if held:
                documents = lessons_of(held).documents
                quality[kind] = measure_programs(
                    [one.gold for one in held],
                    refiner.chunk_programs(documents),
                    refiner.document_programs(documents),
                )
        refiner.facts = {
            "made by": f"tamis {tamis.__version__}",
            "recipe": self.model_dump(mode="json"),
            "trained on": len(learned),
            "held out": quality,
        }
        refiner.save(self.output)
        shown = [f"labels: {kind}\n{format_quality(one)}" for kind, one in quality.items()]
        shown.append(f"trained on {len(learned):,} pages: {self.output}")
        return "\n\n".join(shown)


def lessons_of(examples: Sequence[Example]) -> Lessons:
    """Examples as a batch of documents with labels."""
    text = pa.array([one.gold.text for one in examples], pa.large_string())
    labels = [np.array(one.labels, np.int8) for one in examples]
    return Lessons(
        Documents(pa.RecordBatch.from_pydict({TEXT: text})),
        np.concatenate(labels) if labels else np.zeros(0, np.int8),
        np.array([one.gold.keep for one in examples], np.bool_),
    )


def _example(record: _Record, program: str, keep: bool, kind: Labels, held_out: bool) -> Example:
    """With the labels that a program amounts to."""
    lines = record.text.split("\n")
    labels = [KEEP] * len(lines)
    for at in replaced_lines(program, lines):
        if addresses(lines[at]):
            labels[at] = ADDRESS
    for at in removed_lines(program, len(lines)):
        labels[at] = REMOVE
    return Example(Gold(record.text, program, keep), tuple(labels), kind, held_out)


def _site(value: Any) -> str:
    """The host of an address, or the name as it is."""
    name = str(value or "")
    try:
        return urlsplit(name).hostname or name
    except ValueError:
        return name
