"""The stage ``refine``: a program for each document, from whoever writes it, and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tamis.filters.refine.executor import Compat, Limits, Outcome, keeps, run
from tamis.filters.refine.program import parse
from tamis.filters.refine.writers import Column, Cost, Programs
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.stages import (
    DETAIL,
    Filter,
    Measures,
    Quantity,
    Refine,
    Rule,
    count,
    fraction,
)

_MOST_OF_PROGRAM = 10_000
_MOST_LINES = 40
_MOST_OF_LINE = 300
"""Of what the ledger says about a document: characters, lines, characters of a line."""


class _DropDoc(Rule):
    """``drop_doc()`` drops unless the setting says no."""

    def threshold(self, stage: BaseModel) -> float | None:
        return 1.0 if getattr(stage, self.field) else None


class Written(NamedTuple):
    """The programs of a document, and what came of them."""

    programs: tuple[str, ...]
    outcome: Outcome
    changed: bool
    """Whether the text after them is another."""


class ProX(Filter, Refine):
    """Refines each document by a program that was written for it (ProX): lines go, strings are
    replaced, and a document that is not worth keeping is dropped.

    The programs are those of a compact refiner, of a language model, or of a column. They are data:
    parsed, never evaluated, and bounded in what they can do. A program with too many errors is
    ignored. The ledger has the program of every document that was changed or dropped, and the
    lines that it removed.
    """

    kind: ClassVar[str] = "refine"
    detail_means: ClassVar[str] = "program:"

    writer: Programs = Field(default={"model": None}, validate_default=True)
    """Who writes the programs: ``{model: FILE}`` (null: the compact refiner that comes along),
    ``{generator: {openai: {...}}}``, or ``{column: NAME, document: NAME}``.
    """
    level: Literal["both", "document", "chunk"] = "both"
    """Document programs drop, chunk programs clean; the second are written for what the first keep.
    """
    compat: Compat | None = None
    """``prox``: programs do what they do in the published executor, all its quirks included."""
    max_errors: int = Field(default=1, ge=0)
    """Ignore a program with more errors."""
    drop_doc: bool = True
    """Whether ``drop_doc()`` drops."""
    max_removed_fraction: float | None = Field(default=0.95, ge=0, le=1)
    """Drop a document if such a part of its words went, or more."""
    min_words_left: int | None = Field(default=11, ge=0)
    """Drop a document that was changed if it has fewer words then."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        writer = self.writer
        if not isinstance(writer, Column):
            return
        needed = {"document": ("document", writer.document), "chunk": ("column", writer.column)}
        key, column = needed.get(self.level, ("", "any"))
        if column is None:
            raise RecipeError(
                f"{self.name}.level: {self.level} needs the column of the {self.level} programs: "
                f"writer: {{{key}: NAME}}"
            )

    def requires(self) -> tuple[str, ...]:
        return self.writer.requires()

    def models(self) -> tuple[Path, ...]:
        return self.writer.models()

    def needs_processes(self) -> bool:
        return self.writer.needs_processes()

    def provides(self) -> tuple[Quantity, ...]:
        return (
            Quantity("drop_doc", "count", "1 if its program drops the document", 0.0, 1.0),
            fraction(
                "removed_fraction", "words removed, of all words; missing if it changed nothing"
            ),
            count("words_left", "words after the program; missing if it changed nothing"),
            count("lines_removed", "lines that the program removed"),
            count("replacements", "places where the program replaced a string"),
            count("errors", "calls of its programs that are wrong"),
            count("unknown_lines", "lines of its programs that are no calls"),
            count("cut_calls", "calls that the end of an answer cut off"),
        )

    def rules(self) -> tuple[Rule, ...]:
        return (
            _DropDoc("drop_doc", ">=", "drop_doc"),
            Rule("max_removed_fraction", ">=", "removed_fraction"),
            Rule("min_words_left", "<", "words_left"),
        )

    def measure(self, documents: Documents) -> Measures:
        """What the programs do; ``detail``: the program of a document that is changed or dropped,
        with the lines that go and the errors as comments.

        Raises:
            TamisError: if the programs cannot be had.
        """
        length = len(documents)
        names = [one.name for one in self.provides()]
        measures: dict[str, NDArray[Any]] = {name: np.zeros(length, np.int64) for name in names}
        for name in ("removed_fraction", "words_left"):
            measures[name] = np.full(length, np.nan)
        detail = np.full(length, None, object)
        for row, written in self._written(documents).items():
            for name, value in _numbers(written.outcome).items():
                measures[name][row] = value
            if written.changed or written.outcome.dropped_by:
                detail[row] = _account(written, documents.text[row].as_py() or "")
        return {**measures, DETAIL: detail}

    def refine(self, documents: Documents) -> pa.LargeStringArray:
        """The texts after their programs; a batch in which none changes anything is not copied."""
        text = documents.text
        written = self._written(documents)
        rows = [row for row, one in written.items() if one.changed]
        if not rows:
            return text
        mask = np.zeros(len(text), np.bool_)
        mask[rows] = True
        after = pa.array([written[row].outcome.edited for row in rows], pa.large_string())
        return pc.replace_with_mask(text, mask, after)

    def estimate(self, sample: Documents) -> Mapping[str, float]:
        """What would be asked of a language model about these documents, nothing dropped; empty if
        none is asked.

        Raises:
            TamisError: if its tokenizer cannot be had.
        """
        costs = []
        if self.level != "chunk":
            costs.append(self.writer.document_cost(sample))
        if self.level != "document":
            costs.append(self.writer.chunk_cost(sample))
        asked = [one for one in costs if one is not None]
        if not asked:
            return {}
        total = Cost(*(sum(amounts) for amounts in zip(*asked, strict=True)))
        return {
            "prompts": total.prompts,
            "tokens in prompts": total.prompt_tokens,
            "tokens generated at most": total.most_tokens,
        }

    def _written(self, documents: Documents) -> dict[int, Written]:
        """The programs that say something, in the order of the rows; asked for once a batch."""
        # Who measures and who refines look at the same rows, the second perhaps at fewer.
        return documents.memo((self.kind, self.name), lambda: self._write(documents))

    def _write(self, documents: Documents) -> dict[int, Written]:
        judged = cleaned = [""] * len(documents)
        drops = np.zeros(len(documents), np.bool_)
        if self.level != "chunk":
            judged = self.writer.document_programs(documents)
            for row in np.flatnonzero(documents.alive).tolist():
                drops[row] = not keeps(judged[row], self.compat)
        if self.level != "document":
            stay = documents
            if self.drop_doc and drops.any():
                stay = Documents(documents.batch, documents.alive & ~drops)
            cleaned = self.writer.chunk_programs(stay)
        written = {}
        # By the published rules an untouched document is dropped, too, if it is short.
        always = self.compat is not None and self.level != "document"
        for row in np.flatnonzero(documents.alive).tolist():
            if judged[row] or cleaned[row] or always:
                text = documents.text[row].as_py() or ""
                written[row] = self._execute(text, judged[row], cleaned[row], bool(drops[row]))
        return written

    def _execute(self, text: str, judged: str, cleaned: str, drops: bool) -> Written:
        """What the programs of one document do; its document program has been read."""
        limits = Limits(self.max_errors, self.max_removed_fraction, self.min_words_left)
        outcome = Outcome(text)
        if self.level != "document" and not (drops and self.drop_doc):
            outcome = run(text, cleaned, self.compat, limits)
        if judged and self.compat is None:
            read = parse(judged)
            outcome = outcome._replace(
                errors=outcome.errors + len(read.errors),
                unknown=outcome.unknown + read.unknown,
                cut=outcome.cut + read.cut,
            )
        if drops:
            outcome = outcome._replace(dropped_by="drop_doc")
        programs = tuple(one for one in (judged, cleaned) if one.strip())
        return Written(programs, outcome, outcome.edited != text)


def _numbers(outcome: Outcome) -> dict[str, float]:
    return {
        "drop_doc": float(outcome.dropped_by == "drop_doc"),
        "removed_fraction": outcome.removed_fraction,
        "words_left": outcome.words_left,
        "lines_removed": sum(last - first + 1 for first, last in outcome.removed),
        "replacements": sum(one.times for one in outcome.replaced),
        "errors": outcome.errors,
        "unknown_lines": outcome.unknown,
        "cut_calls": outcome.cut,
    }


def _account(written: Written, before: str) -> str:
    """The programs, and as comments the lines that went, the strings, and what was wrong."""
    outcome = written.outcome
    lines = before.split("\n")
    gone = [at for first, last in outcome.removed for at in range(first, last + 1)]
    account = [_shortened("\n".join(written.programs), _MOST_OF_PROGRAM)]
    account += [f"# - [{at:03d}]{_shortened(lines[at])}" for at in gone[:_MOST_LINES]]
    if len(gone) > _MOST_LINES:
        account.append(f"# - {len(gone) - _MOST_LINES:,} more lines")
    for one in outcome.replaced[:_MOST_LINES]:
        source, target = _shortened(one.source), _shortened(one.target)
        account.append(f"# {one.times} times {source!r} -> {target!r}")
    account += [f"# error: {_shortened(one)}" for one in outcome.problems[:_MOST_LINES]]
    return "\n".join(account)


def _shortened(text: str, most: int = _MOST_OF_LINE) -> str:
    return text if len(text) <= most else text[:most] + "..."
