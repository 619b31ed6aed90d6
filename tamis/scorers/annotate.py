"""``tamis fit annotations CONFIG``: ratings of documents by a language model, after a rubric.

    sample: crawl/*.parquet
    documents: 5000
    generator: {openai: {url: "http://localhost:8000/v1", model: NAME}}
    output: ratings.jsonl

The output is what ``tamis fit quality`` learns from: {"id", "text", "score", "answer"} a line; the
score is null where the answer has none. Answers are kept as they arrive: when the model stops
answering half way, the next run asks for the rest alone.

Source: Penedo et al. 2024 (arXiv:2406.17557, FineWeb-Edu): an additive rubric of five points, told
here in our own words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import orjson
from pydantic import Field

from tamis.fit import Fit
from tamis.generation.cache import cache_folder, generate_cached, spent
from tamis.generation.generator import Prompt
from tamis.generation.setting import Generation
from tamis.pipeline.documents import ID, TEXT
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.storage import explained
from tamis.scorers.reading import Corpus
from tamis.scorers.sample import Sample, draw_sample

MARKER = "Educational score:"
RUBRIC = f"""\
Below is an extract of a web page. Rate how useful it would be for teaching in primary and grade \
school. Start from 0 and add a point for each of these statements that holds:

- It has some basic information about a topic that is taught, even among advertising or other \
matter that teaches nothing. (1 point)
- It treats elements that belong to education, but mixes them with other matter, or stays on the \
surface, or is badly organised. (1 more point)
- It could be used in class: it introduces key concepts of a school subject and is coherent, even \
if incomplete or with some matter beside the point. (1 more point)
- It is highly relevant and useful, for learning that does not go beyond grade school, clear and \
consistent in style, like a chapter of a textbook or a tutorial with exercises and solutions, with \
little beside the point. (1 more point)
- It is outstanding for teaching in primary or grade school: the reasoning is detailed, it is easy \
to follow, and nothing distracts. (1 more point)

The extract:

{{text}}

Explain your rating in at most 100 words. Then end with one line of this form:
{MARKER} <total points>
"""
"""Asks for 0 to 5 points; ``{text}`` stands for the document."""

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
)
_VALUE = rf"(?P<value>\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})\b"
# What stands between the marker and the number: signs, Markdown, "is". A minus would belong to the
# number.
_BETWEEN = r"(?:[\s:=*_`~\"'()\[\]<>{}#]|\s[-\u2013\u2014]\s|\bis\b|\bof\b|\btotal\b)*"
# 3-4 is no number, nor is 3 or 4; 3/5 is 3.
_BEHIND = r"(?!\s*(?:-|\u2013|\bto\b|\bor\b)\s*\d)(?!\.?\d)"


def parse_score(answer: str, marker: str = MARKER, scale: tuple[int, int] = (0, 5)) -> float | None:
    """The number behind the last ``marker`` of an answer that has one; None if there is none, or it
    is not on the scale.

    Case, punctuation, Markdown and "3/5" or "three" do not matter; a range of numbers is none.
    """
    words = r"\W+".join(map(re.escape, re.findall(r"\w+", marker)))
    pattern = rf"\b{words}{_BETWEEN}{_VALUE}{_BEHIND}"
    found = [match["value"].lower() for match in re.finditer(pattern, answer, re.IGNORECASE)]
    if not found:
        return None
    value = float(_NUMBERS.index(found[-1]) if found[-1] in _NUMBERS else found[-1])
    return value if scale[0] <= value <= scale[1] else None


class Annotation(NamedTuple):
    """What a model said of a document."""

    id: str
    text: str
    score: float | None
    """None if the answer has none."""
    answer: str


class FitAnnotations(Fit):
    """Asks a language model for ratings of a sample of documents."""

    kind: ClassVar[str] = "annotations"

    sample: str | tuple[str, ...]
    """The corpus: files of any format that a recipe reads, folders, or finished runs."""
    documents: int = Field(default=1000, ge=1)
    """How many documents of it are drawn and rated. FineWeb-Edu had 460,000 rated."""
    generator: Generation
    """The model that is asked."""
    rubric: str = RUBRIC
    """What it is asked; ``{text}`` stands for the document."""
    marker: str = MARKER
    """What stands before the number in its answer."""
    scale: tuple[int, int] = (0, 5)
    """The lowest and the highest rating."""
    max_characters: int = Field(default=8000, ge=1)
    """Of a document that the model sees: its beginning."""
    max_tokens: int = Field(default=300, ge=1)
    """Of an answer."""
    temperature: float = Field(default=0.0, ge=0)
    cache: str | bool = True
    """The folder where answers are kept; true for $TAMIS_CACHE/answers, false for nowhere."""
    seed: int = Field(default=0, ge=0)
    """Of the sample."""
    work: Path | None = None
    """Where the sample is kept. Default: OUTPUT.work."""

    def model_post_init(self, context: object, /) -> None:
        if "{text}" not in self.rubric:
            raise RecipeError("rubric: {text} has to stand where the document belongs")
        if not re.search(r"\w", self.marker):
            raise RecipeError("marker: it needs a word")
        if not self.output.name.endswith(".jsonl"):
            raise RecipeError(f"output = {self.output}: the name of the ratings ends in .jsonl")

    def fit(self) -> str:
        self.generator.models()
        paths = (self.sample,) if isinstance(self.sample, str) else self.sample
        folder = self.work or self.output.with_name(self.output.name + ".work")
        sample = draw_sample(Corpus(paths, "sample"), folder, self.documents, self.seed)
        scores: Counter[float | None] = Counter()
        first_without, scratch = "", self.output.with_name(f".{self.output.name}.writing")
        with explained(str(self.output)):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as out:
                for one in self.annotate(sample):
                    scores[one.score] += 1
                    if one.score is None:
                        first_without = first_without or one.answer
                    out.write(orjson.dumps(one._asdict()) + b"\n")
            if set(scores) == {None}:
                scratch.unlink()
            else:
                scratch.replace(self.output)
        if set(scores) == {None}:
            raise TamisError(
                f"none of {scores[None]:,} answers has a number behind {self.marker!r}; the first "
                f"is {' '.join(first_without.split())!r:.120}"
            )
        return self._told(scores)

    def annotate(self, sample: Sample) -> Iterator[Annotation]:
        """The ratings of a sample, in the order of the corpus.

        Raises:
            TamisError: if the model does not answer; what it has answered is kept.
        """
        for _, documents in sample.batches():
            texts = documents.batch[TEXT].to_pylist()
            prompts = [self.prompt(text) for text in texts]
            answers = generate_cached(
                *(self.generator, prompts, self.max_tokens),
                *(cache_folder(self.cache), self.temperature),
            )
            ids = documents.batch[ID].to_pylist()
            for id_, text, answer in zip(ids, texts, answers, strict=True):
                score = parse_score(answer.text, self.marker, self.scale)
                yield Annotation(id_, text, score, answer.text)

    def prompt(self, text: str) -> Prompt:
        """What the model is asked about a text."""
        return Prompt(self.rubric.replace("{text}", text[: self.max_characters]))

    def _told(self, scores: Counter[float | None]) -> str:
        took = spent(self.generator)
        lines = [f"{sum(scores.values()):,} documents: {self.output}"]
        rated = sorted((score, count) for score, count in scores.items() if score is not None)
        lines += [f"  rated {score:g}: {count:,}" for score, count in rated]
        if scores[None]:
            lines.append(f"  without a rating that can be read: {scores[None]:,}")
        lines.append(
            f"{took.asked:,} were asked now ({took.prompt_tokens:,} tokens read, {took.tokens:,} "
            "written), the others were known"
        )
        return "\n".join(lines)
