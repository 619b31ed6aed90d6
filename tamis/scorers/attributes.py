"""Attributes: documents into buckets by their scores and labels, each bucket a source to mix.

Source: "Data, Data Everywhere" (arXiv:2407.06380): documents are labelled by quality, toxicity,
domain and type of speech, and each value of an attribute, or combination of values, is sampled as a
source of its own. Here a number becomes a value by cuts, a label is one already, and a bucket is
the values of a document one behind the other: ``high-low-news``. ``groups`` merges buckets.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from tamis.filters.dedup.duplicates import documents_of
from tamis.filters.dedup.summary_columns import TableSummaries, read_column
from tamis.filters.language import Name
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.stages import Fitted, Measure, Measures, Quantity, Summaries
from tamis.scorers.columns import column_of, missing_scores, numbers_of, score_columns

_ARTEFACT = "attributes.json"
_BUCKET = "bucket"
_BYTES, _TOKENS = "bytes", "tokens"
MOST_BUCKETS = 10_000
_DEFAULT_NAMES = {1: ("low", "high"), 2: ("low", "medium", "high")}

Cuts = Annotated[tuple[float, ...], Field(min_length=1)]


class Attribute(BaseModel):
    """How a column becomes the value of an attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    """A column, or a stage whose ``score`` is meant. Without cuts it holds labels."""
    cuts: Cuts | None = None
    """Ascending: a number below the first has the first value, one from the first on and below the
    second the second...
    """
    quantiles: Cuts | None = None
    """The cuts are where these fractions of the documents lie below."""
    names: tuple[str, ...] | None = None
    """One more than cuts; by default low and high, or low, medium and high, or 1, 2, 3, ..."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str | None:
        if self.cuts is not None and self.quantiles is not None:
            return "say cuts or quantiles, not both"
        given = self.cuts or self.quantiles or ()
        if not all(map(math.isfinite, given)):
            return "cuts are numbers"
        if list(given) != sorted(set(given)):
            return "cuts and quantiles ascend"
        if any(not 0 < one < 1 for one in self.quantiles or ()):
            return "quantiles are fractions of the documents, between 0 and 1"
        if self.names is None:
            return None
        if not given:
            return "names are for cuts; labels have names"
        if len(set(self.names)) != len(given) + 1 or len(self.names) != len(given) + 1:
            return f"{len(given)} cuts take {len(given) + 1} different names"
        return None

    def values(self) -> tuple[str, ...]:
        """The names of the values in ascending order; none if they are labels."""
        number = len(self.cuts or self.quantiles or ())
        if not number or self.names is not None:
            return self.names or ()
        return _DEFAULT_NAMES.get(number) or tuple(str(k + 1) for k in range(number + 1))


class _Coded(NamedTuple):
    """Names by their numbers."""

    names: Sequence[str]
    codes: NDArray[np.int64]

    def strings(self) -> NDArray[np.str_]:
        return np.array(self.names or [""])[self.codes]


class Attributes(Fitted, Measure):
    """Adds to each document the bucket that its scores and labels put it in, drops nothing, and
    notes in the manifest how large each bucket is.
    """

    kind: ClassVar[str] = "attributes"

    by: dict[str, Attribute] = Field(min_length=1)
    """The attributes by name, in the order in which they make up the bucket: ``{quality: {column:
    edu, quantiles: [0.5, 0.9]}, language: {column: identify_language.label}}``.
    """
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Buckets that are one, under the name of the group; the others stay as they are."""
    others: str | None = None
    """One name for all buckets that are in no group."""
    unknown: str = "unknown"
    """The value of a document without a score or label."""
    separator: str = "-"
    token_column: str | None = None
    """A column of token counts, to size the buckets in tokens too."""

    _cuts: tuple[tuple[float, ...], ...] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if _BUCKET in self.by:
            raise RecipeError(f"{self.name}.by: call an attribute something else than {_BUCKET}")
        members = Counter(one for group in self.groups.values() for one in group)
        twice = [bucket for bucket, number in members.items() if number > 1]
        if twice:
            raise RecipeError(f"{self.name}.groups: {twice[0]} is in two groups")
        values = [one.values() for one in self.by.values()]
        if all(values):
            possible = {
                self.separator.join(one)
                for one in product(*((*names, self.unknown) for names in values))
            }
            for bucket in members:
                if bucket not in possible:
                    raise RecipeError(
                        f"{self.name}.groups: there is no bucket {bucket}"
                        f"{nearest(bucket, possible)}; it is the values "
                        f"of {self.separator.join(self.by)}"
                    )
        return self

    def requires(self) -> tuple[str, ...]:
        names = [one.column for one in self.by.values()]
        return (*names, self.token_column) if self.token_column else tuple(names)

    def missing(self, available: Sequence[str]) -> list[str]:
        """What is needed and not there."""
        return missing_scores(self.requires(), available)

    def provides(self) -> tuple[Quantity, ...]:
        named = (Name(one, "label", f"value by {self.by[one].column}") for one in self.by)
        return (*named, Name(_BUCKET, "label", f"{self.separator.join(self.by)}, or its group"))

    def summarize(self, documents: Documents) -> pa.RecordBatch:
        """The attributes' columns and the size, one row a document that is alive."""
        alive = pa.array(documents.alive)
        columns = {name: self._column(documents, name).filter(alive) for name in self.by}
        # The names of attributes are the user's; those of sizes cannot be one of them.
        sizes = {f"#{_BYTES}": pa.array(np.diff(documents.utf8()[1])).filter(alive)}
        if self.token_column:
            tokens = np.nan_to_num(numbers_of(documents, self.token_column, self.name))
            sizes[f"#{_TOKENS}"] = pa.array(tokens.astype(np.int64)).filter(alive)
        return pa.RecordBatch.from_pydict(columns | sizes)

    def fit(self, summaries: Summaries, folder: Path) -> dict[str, Any]:
        """Find the cuts and write them; gives them and the sizes of all buckets.

        Raises:
            TamisError: if there are more than 10,000 buckets.
        """
        cuts = self._find_cuts(summaries)
        (folder / _ARTEFACT).write_text(json.dumps(cuts), encoding="utf-8")
        sizes = self._with(cuts)._sizes(summaries)
        return {"cuts": dict(zip(self.by, cuts, strict=True)), "buckets": sizes}

    def load(self, folder: Path) -> Self:
        """This stage with the cuts that ``fit`` wrote.

        Raises:
            TamisError: if the folder does not hold them.
        """
        try:
            return self._with(json.loads((folder / _ARTEFACT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TamisError(f"{folder} cannot be read ({error}): fit {self.name} again") from error

    def fit_table(self, table: pa.Table) -> Self:
        """This stage fitted on a table in memory.

        Raises:
            TamisError: if a column is missing, or is of another kind.
        """
        summaries = [self.summarize(one) for one in documents_of(table, self._columns_in(table))]
        return self._with(self._find_cuts(TableSummaries(summaries)))

    def measure(self, documents: Documents) -> Measures:
        """The value of each attribute, and ``bucket``.

        Raises:
            TamisError: if the stage was not fitted, or a column is missing or of another kind.
        """
        columns = {name: self._column(documents, name) for name in self.by}
        values, bucket = self._buckets(columns)
        measures: Measures = {name: one.strings() for name, one in values.items()}
        return measures | {_BUCKET: bucket.strings()}

    def _column(self, documents: Documents, name: str) -> pa.Array:
        """Numbers as float64, labels as strings."""
        attribute = self.by[name]
        if attribute.values():
            return pa.array(numbers_of(documents, attribute.column, self.name))
        labels = column_of(documents, attribute.column, self.name)
        if pa.types.is_floating(labels.type):
            raise TamisError(
                f"{self.name}.by.{name}: the column {attribute.column} holds numbers; say at which "
                "cuts or quantiles"
            )
        return labels.cast(pa.string())

    def _find_cuts(self, summaries: Summaries) -> list[tuple[float, ...]]:
        found = []
        for name, attribute in self.by.items():
            cuts = attribute.cuts or ()
            if attribute.quantiles:
                values = np.array(read_column(summaries, name, np.float64))
                values.sort()
                known = values[: int(np.searchsorted(values, np.nan))]
                # 0.29 * 100 is a little below 29.
                places = [int(one * len(known) + 1e-6) for one in attribute.quantiles]
                cuts = tuple(float(known[place]) if len(known) else 0.0 for place in places)
            found.append(cuts)
        return found

    def _buckets(self, columns: dict[str, pa.Array]) -> tuple[dict[str, _Coded], _Coded]:
        """The value of each attribute, and the bucket, of rows."""
        if self._cuts is None:
            raise TamisError(
                f"Stage {self.name} has to see all documents first: use fit and load, or fit_table."
            )
        values: dict[str, _Coded] = {}
        names = [""]
        codes = np.zeros(len(next(iter(columns.values()))), np.int64)
        for (name, attribute), cuts in zip(self.by.items(), self._cuts, strict=True):
            one = self._coded(columns[name], cuts, attribute.values())
            values[name] = one
            # Only those that occur: labels can be many.
            found, codes = np.unique(codes * len(one.names) + one.codes, return_inverse=True)
            pairs = [divmod(int(pair), len(one.names)) for pair in found]
            link = self.separator if len(values) > 1 else ""
            names = [names[before] + link + one.names[last] for before, last in pairs]
        group_of = {bucket: group for group, many in self.groups.items() for bucket in many}
        names = [group_of.get(one, self.others or one) for one in names]
        return values, _Coded(names, codes)

    def _coded(self, column: pa.Array, cuts: Sequence[float], names: Sequence[str]) -> _Coded:
        if names:
            numbers = column.to_numpy(zero_copy_only=False)
            place = np.searchsorted(np.asarray(cuts, np.float64), numbers, side="right")
            return _Coded([*names, self.unknown], np.where(np.isnan(numbers), len(names), place))
        encoded = column.fill_null(self.unknown).dictionary_encode()
        labels = [label or self.unknown for label in encoded.dictionary.to_pylist()]
        return _Coded(labels or [self.unknown], encoded.indices.to_numpy().astype(np.int64))

    def _sizes(self, summaries: Summaries) -> dict[str, dict[str, int]]:
        """Documents, bytes and tokens of every bucket, by its name."""
        sizes: dict[str, Counter[str]] = {}
        for batch in _summary_batches(summaries):
            _, bucket = self._buckets({name: batch.column(name) for name in self.by})
            parts = {"documents": np.ones(batch.num_rows, np.int64)}
            for unit in (_BYTES, _TOKENS):
                if f"#{unit}" in batch.schema.names:
                    parts[unit] = batch.column(f"#{unit}").to_numpy()
            for unit, amounts in parts.items():
                # Sums of whole numbers below 2^53 are exact in float64.
                totals = np.bincount(bucket.codes, amounts, len(bucket.names))
                for name, total in zip(bucket.names, totals, strict=True):
                    sizes.setdefault(name, Counter())[unit] += int(total)
            if len(sizes) > MOST_BUCKETS:
                columns = ", ".join(one.column for one in self.by.values())
                raise TamisError(
                    f"{self.name}: more than {MOST_BUCKETS:,} buckets; are all of these labels: "
                    f"{columns}?"
                )
        return {name: dict(sizes[name]) for name in sorted(sizes) if sizes[name]["documents"]}

    def _columns_in(self, table: pa.Table) -> tuple[str, ...]:
        return score_columns(table, self.requires(), self.name)

    def _with(self, cuts: Sequence[Sequence[float]]) -> Self:
        fitted = self.model_copy()
        fitted._cuts = tuple(tuple(map(float, one)) for one in cuts)
        return fitted


def assign_buckets(table: pa.Table, stage: Attributes) -> pa.Table:
    """The table, in memory, with the columns of the attributes and of the bucket more.

    Raises:
        TamisError: if a column is missing, or is of another kind.
    """
    fitted = stage.fit_table(table)
    parts = [fitted.measure(one) for one in documents_of(table, stage._columns_in(table))]
    for quantity in stage.provides():
        values = [pa.array(part[quantity.name], pa.string()) for part in parts]
        column = pa.chunked_array(values, pa.string())
        table = table.append_column(f"{stage.name}.{quantity.name}", column)
    return table


def _summary_batches(summaries: Summaries) -> Iterator[pa.RecordBatch]:
    """The rows of all summaries, those of one task in memory at a time."""
    if isinstance(summaries, TableSummaries):
        yield from summaries.batches
    for path in summaries.paths:
        yield from Summaries([path]).read().to_batches()
