"""Selection: which documents to keep, by a score and an amount of text.

``keep_fraction`` is the cut of PreSelect (arXiv:2503.00808) and BETR (arXiv:2507.12466): from the
best document on, until the amount exceeds the fraction; all documents that score as well as the
last one are kept too. ``sample: gumbel`` draws instead, as DSIR does (arXiv:2302.03169).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from tamis.filters.dedup.duplicates import documents_of
from tamis.filters.dedup.summary_columns import TableSummaries, input_rows
from tamis.filters.dedup.xxh3 import xxh3_128
from tamis.filters.text.words import Profile
from tamis.pipeline.documents import ID, ROW, SOURCE, Documents, utf8_view
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.stages import (
    DETAIL,
    Filter,
    Fitted,
    Measures,
    Quantity,
    Rule,
    Summaries,
    Verdicts,
    count,
    fraction,
)
from tamis.pipeline.statistics import sampling_hash
from tamis.scorers.amounts import Unit, amounts, token_amounts, tokenizer_file
from tamis.scorers.ranking import gumbel_noise, sort_keys, values_of
from tamis.scorers.selection import Candidates, Selection, fit_selection

OTHERS = "*"
"""The quota of the sources that are not named."""

Fraction = float | dict[str, float]
Amount = int | dict[str, int]


class MaxPer(BaseModel):
    """At most so many documents, or such a fraction of them, of each cluster: the best ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    """The column that names the cluster; documents with null or NaN in it are in none."""
    documents: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, lt=1)


@dataclass(frozen=True)
class Limit(Rule):
    """A rule with its threshold, about the documents of one source or of all."""

    limit: float | None = None
    source: str | None = None

    def threshold(self, stage: BaseModel) -> float | None:
        return self.limit

    def can_fail(self, quantity: Quantity, threshold: float) -> bool:
        return True


class Select(Fitted, Filter):
    """Keep the best documents by a score: a fraction or an amount of the text, all above a
    threshold, or a band of percentiles.

    Say one of ``keep_fraction``, ``keep``, ``threshold`` and ``band``. A document without a score
    (NaN or null) is dropped under the rule ``no_score``, but its text counts for the fraction. The
    ledger has the document's rank: the fraction of the text that is better, or its amount.
    """

    kind: ClassVar[str] = "select"
    detail_means: ClassVar[str] = "scored"

    by: str
    """A column, or the stage whose ``score`` it is: ``preselect`` is ``preselect.score``."""
    keep_fraction: Fraction | None = None
    """Keep the best documents until they exceed this fraction of the amount; ``{web: 0.1, "*": 1}``
    says it for each value of ``per``.
    """
    keep: Amount | None = None
    """Keep the best documents until they reach this amount; or one for each value of ``per``."""
    threshold: float | None = None
    """Keep documents with this score or a better one."""
    band: tuple[float, float] | None = None
    """Keep the documents between two fractions, counted from the lowest score on: [0.25, 0.75] is
    the middle half. Bands that meet share no document.
    """
    prefer: Literal["highest", "lowest"] = "highest"
    """Which scores are better."""
    unit: Unit = "documents"
    """What is counted."""
    words: Profile = "whitespace"
    """What a word is, for the unit words."""
    tokenizer: Path | None = None
    """A tokenizer.json or a folder with one, for the unit tokens."""
    token_column: str | None = None
    """The column with the number of tokens, instead of a tokenizer."""
    per: str | None = None
    """A column: each of its values is ranked by itself (``source``: quotas per source)."""
    sample: Literal["top", "gumbel"] = "top"
    """``gumbel``: a random sample in which a document is the likelier the better it is:
    probabilities proportional to exp(score / temperature), without replacement.
    """
    temperature: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Of the sample, which depends on it and the ids alone."""
    max_per: MaxPer | None = None
    """Diversity: no more than so many documents of a cluster, the best ones."""
    tie_by: str | None = None
    """A column that decides between equal scores, the higher one first (a logit)."""
    ties: Literal["keep_all", "exact"] = "keep_all"
    """At the threshold: keep all that score the same, or only as many as needed, chosen by a hash
    of their ids.
    """
    error: float | None = Field(default=None, gt=0, lt=0.5)
    """For very large corpora: ranks that are off by at most this fraction, in little memory.
    Default: exact, with some 75 bytes of memory a document while they are computed (200 with
    ``ties: exact``, ``tie_by`` or ``max_per``).
    """

    _selection: Selection | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problem := _problem(self):
            raise RecipeError(f"{self.name}: {problem}")
        return self

    def __call__(self, data: Any) -> Any:
        """Not on batches: see ``select_rows``."""
        raise TamisError(
            f"{self.kind} looks at all documents before it keeps any: use it in a Pipeline, or "
            "tamis.scorers.select.select_rows(table, stage) on a whole pyarrow table"
        )

    def missing(self, available: Sequence[str]) -> list[str]:
        """The columns that are needed and not there, ``by`` as it was written."""
        names = [name for name in self.requires() if name not in available]
        return names if _column(self.by, available) else [self.by, *names]

    def requires(self) -> tuple[str, ...]:
        """The columns besides that of ``by``."""
        cluster = self.max_per.column if self.max_per else None
        names = (self.per, self.tie_by, cluster, self.token_column)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def models(self) -> tuple[Path, ...]:
        return () if self.tokenizer is None else (tokenizer_file(self.tokenizer),)

    def provides(self) -> tuple[Quantity, ...]:
        quantities = [count("no_score", "1 if it has no score")]
        if self.max_per:
            about = "better documents of its cluster"
            share = self.max_per.fraction is not None
            quantities += [fraction("place", about) if share else count("place", about)]
        if self.threshold is not None:
            score = Quantity("score", "fraction", "the score that is compared", -np.inf, np.inf)
            return (*quantities, score)
        if self.keep is not None:
            quantities.append(count("ahead", f"{self.unit} that are better"))
        elif self.band is not None:
            quantities.append(fraction("percentile", f"{self.unit} with a score up to its own"))
        else:
            quantities.append(fraction("rank", f"{self.unit} that are better, of all"))
        if isinstance(self.quotas, dict):
            quantities.append(Quantity("group", "label", f"a hash of its {self.per}"))
        return tuple(quantities)

    @property
    def quotas(self) -> Fraction | Amount | None:
        """The fraction or amount to keep, or those by group."""
        return self.keep_fraction if self.keep is None else self.keep

    def rules(self) -> tuple[Rule, ...]:
        rules: list[Rule] = [Limit("no_score", ">", "no_score", 0.0)]
        if self.max_per:
            most = self.max_per.documents or self.max_per.fraction
            rules.append(Limit("capped", ">=", "place", most))
        if self.threshold is not None:
            worse: Literal["<", ">"] = "<" if self.prefer == "highest" else ">"
            rules.append(Limit("threshold", worse, "score", self.threshold))
        if self.band is not None:
            # Nothing lies below the band that begins at 0.
            low = self.band[0] or None
            rules.append(Limit("band.low", "<=", "percentile", low))
            rules.append(Limit("band.high", ">", "percentile", self.band[1]))
        if self.keep_fraction is not None:
            rules += _quota_rules("keep_fraction", ">", "rank", self.keep_fraction)
        if self.keep is not None:
            rules += _quota_rules("keep", ">=", "ahead", self.keep)
        return tuple(rules)

    def decide(self, measures: Mapping[str, NDArray[Any]]) -> Verdicts:
        """As every filter, but for quotas, which are about the documents of their group."""
        from tamis.pipeline.kernels import note_failures

        rules = self.rules()
        length = len(measures["no_score"])
        failed = np.full(length, -1, np.int16)
        value, threshold = np.full(length, np.nan), np.full(length, np.nan)
        named = [group_label(rule.source) for rule in rules if isinstance(rule, Limit)
                 and rule.source not in (None, OTHERS)]  # fmt: skip
        for index, rule in enumerate(rules):
            limit = rule.threshold(self)
            if limit is None:
                continue
            values = np.ascontiguousarray(measures[rule.measure], np.float64)
            fails = rule.fails(values, limit)
            if isinstance(rule, Limit) and rule.source is not None:
                group = measures["group"]
                others = rule.source == OTHERS
                fails &= ~np.isin(group, named) if others else group == group_label(rule.source)
            note_failures(fails, values, limit, index, failed, value, threshold)
        return Verdicts(rules, failed, value, threshold)

    def summarize(self, documents: Documents) -> pa.RecordBatch:
        """One row a document that is alive: its key and amount, its group and source, and what ties
        and caps are decided by.
        """
        batch, alive = documents.batch, pa.array(documents.alive)
        scores = self._scores(documents)
        sizes = self._sizes(documents)
        columns: dict[str, pa.Array] = {
            ROW: pa.array(input_rows(documents, self.name), pa.uint64()),
            "key": pa.array(self._keys(documents, scores)),
            "scored": pa.array(~np.isnan(scores)),
            "size": pa.array(sizes, pa.int64()),
            "group": names_in(batch, self.per),
            "source": names_in(batch, SOURCE if SOURCE in batch.schema.names else None),
        }
        if self.by_row:
            columns["hash"] = pa.array(self._hashes(documents))
        if self.tie_by is not None:
            # NaN is worse than every number.
            ties = numbers_in(documents, self.tie_by, self.name)
            columns["tie"] = pa.array(np.where(np.isnan(ties), 0, sort_keys(ties)))
        if self.max_per is not None:
            columns["cluster"] = _clusters(batch, self.max_per.column)
        return pa.RecordBatch.from_pydict(columns).filter(alive)

    @property
    def by_row(self) -> bool:
        """Whether ranks depend on more than the scores."""
        return self.ties == "exact" or self.tie_by is not None or self.max_per is not None

    def fit(self, summaries: Summaries, folder: Path) -> dict[str, Any]:
        """Rank the documents and write the ranks.

        Returns the threshold (by group with ``per``), how many documents it keeps and have exactly
        this score, what is kept by source, and by how much ranks may be off.

        Raises:
            TamisError: if no document has a score, or a group has no quota.
        """
        selection, facts = fit_selection(self, summaries)
        selection.write(folder)
        return facts

    def load(self, folder: Path) -> Self:
        """This stage with the ranks that ``fit`` wrote."""
        return self._with(Selection.read(folder, self.name))

    def fit_table(self, table: pa.Table) -> Self:
        """This stage fitted on a table in memory with a column ``text``, and ``id``, on which the
        choice between ties and the sample depend.

        Raises:
            TamisError: if a column is missing, or as ``fit`` does.
        """
        names = table.column_names
        if missing := self.missing(names):
            raise TamisError(
                f"{self.kind} needs the column {missing[0]}{nearest(missing[0], names)}"
            )
        columns = (_column(self.by, names) or "", *self.requires(), SOURCE)
        summaries = [self.summarize(documents) for documents in documents_of(table, columns)]
        return self._with(fit_selection(self, TableSummaries(summaries))[0])

    def _with(self, selection: Selection) -> Self:
        fitted = self.model_copy()
        fitted._selection = selection
        return fitted

    def measure(self, documents: Documents) -> Measures:
        """The measures of ``provides``, NaN for a document without a score, and as detail the score
        and the threshold.

        Raises:
            TamisError: if the stage was not fitted.
        """
        if self._selection is None:
            raise TamisError(
                f"Stage {self.name} has to see all documents first: use it in a Pipeline, or "
                "tamis.scorers.select.select_rows."
            )
        scores = self._scores(documents)
        groups = names_in(documents.batch, self.per).dictionary_encode()
        found = Candidates(
            input_rows(documents, self.name),
            self._keys(documents, scores),
            ~np.isnan(scores),
            groups.indices.to_numpy(),
            groups.dictionary.to_pylist(),
        )
        measures = self.measures_of(found, self._selection)
        dropped = np.flatnonzero(~self.decide(measures).keep & found.scored & documents.alive)
        detail = np.full(len(documents), None, object)
        noisy = self.sample == "gumbel"
        limits = ["" if noisy else self._selection.threshold_text(name) for name in found.names]
        detail[dropped] = [
            f"{score:.6g}{limits[group]}"
            for score, group in zip(scores[dropped].tolist(), found.group[dropped], strict=True)
        ]
        return {**measures, DETAIL: detail}

    def measures_of(self, found: Candidates, selection: Selection) -> Measures:
        """The measures of documents whose keys are known."""
        measures: Measures = {"no_score": (~found.scored).astype(np.int64)}
        ranks = selection.ranks(found)
        if self.max_per is not None:
            measures["place"] = ranks.place
        if self.threshold is not None:
            values = values_of(found.key, self.prefer == "highest")
            measures["score"] = np.where(found.scored, values, np.nan)
        elif self.keep is not None:
            measures["ahead"] = ranks.ahead
        elif self.band is not None:
            measures["percentile"] = (ranks.scored - ranks.ahead) / np.maximum(ranks.scored, 1)
        else:
            measures["rank"] = ranks.ahead / np.maximum(ranks.total, 1)
        if isinstance(self.quotas, dict):
            labels = np.array([group_label(name) for name in found.names], np.int64)
            measures["group"] = labels[found.group]
        return measures

    def _scores(self, documents: Documents) -> NDArray[np.float64]:
        column = _column(self.by, documents.batch.schema.names)
        if column is None:
            raise TamisError(
                f"{self.name} needs the column {self.by}"
                f"{nearest(self.by, documents.batch.schema.names)}"
            )
        return numbers_in(documents, column, self.name)

    def _keys(self, documents: Documents, scores: NDArray[np.float64]) -> NDArray[np.uint64]:
        if self.sample == "gumbel":
            signed = scores if self.prefer == "highest" else -scores
            noise = gumbel_noise(self._hashes(documents))
            return sort_keys(signed / self.temperature + noise)
        # Bands are counted from the lowest score on.
        return sort_keys(scores, self.prefer == "highest")

    def _hashes(self, documents: Documents) -> NDArray[np.uint64]:
        """A hash of seed and id."""
        data, offsets = utf8_view(documents.batch.column(ID).cast(pa.large_string()))
        hashes = xxh3_128(data, offsets[:-1], offsets[1:])[:, 1]
        return sampling_hash(hashes ^ sampling_hash(np.array([self.seed], np.uint64)))

    def _sizes(self, documents: Documents) -> NDArray[np.int64]:
        if self.unit != "tokens":
            return amounts(documents, self.unit, self.words)
        if self.tokenizer is not None:
            return token_amounts(documents, self.tokenizer)
        counts = numbers_in(documents, self.token_column or "", self.name)
        return np.nan_to_num(counts, nan=0.0).astype(np.int64)


def select_rows(table: pa.Table, stage: Select) -> pa.Table:
    """The rows of a table in memory (with ``text``, and ``id`` for ties and samples) that ``stage``
    keeps: ``select_rows(table, Select(by="edu", keep_fraction=0.1, unit="tokens"))``.

    Raises:
        TamisError: if a column is missing, no row has a score, or a group has no quota.
    """
    fitted = stage.fit_table(table)
    columns = (_column(stage.by, table.column_names) or "", *stage.requires())
    keep = [fitted.decide(fitted.measure(one)).keep for one in documents_of(table, columns)]
    return table.filter(pa.array(np.concatenate(keep))) if keep else table


def group_label(name: str | None) -> int:
    """A number for the name of a group that float64 holds exactly."""
    return xxhash.xxh3_64_intdigest(name or "") >> 11


def numbers_in(documents: Documents, column: str, stage: str) -> NDArray[np.float64]:
    """A column as float64, NaN where it is null.

    Raises:
        TamisError: if it does not hold numbers.
    """
    values = documents.batch.column(column)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise TamisError(f"{stage} needs numbers in the column {column}, which holds {kind}")
    numbers = values.cast(pa.float64()).fill_null(float("nan"))
    found: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return found


def names_in(batch: pa.RecordBatch, column: str | None) -> pa.StringArray:
    """A column as strings, empty where it is null; all empty without a column."""
    if column is None:
        return pa.array([""], pa.string()).take(pa.array(np.zeros(batch.num_rows, np.int64)))
    return batch.column(column).cast(pa.string()).fill_null("")


def _clusters(batch: pa.RecordBatch, column: str) -> pa.StringArray:
    values = batch.column(column)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(pa.string())


def _column(by: str, available: Sequence[str]) -> str | None:
    """The column that ``by`` means: the score of the stage before a column of that very name."""
    return next((name for name in (f"{by}.score", by) if name in available), None)


def _quota_rules(
    field: str, comparison: Literal[">", ">="], measure: str, quota: Fraction | Amount
) -> list[Rule]:
    if not isinstance(quota, dict):
        return [Limit(field, comparison, measure, float(quota))]
    return [
        Limit(f"{field}.{source}", comparison, measure, float(one), source)
        for source, one in sorted(quota.items())
    ]


def _problem(stage: Select) -> str | None:
    """What does not fit together in the settings, if anything."""
    ways = ("keep_fraction", "keep", "threshold", "band")
    given = [name for name in ways if getattr(stage, name) is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} are there" if given else "none is there"
        return f"say how much to keep by one of {', '.join(ways)}: {said}"
    fractions = stage.keep_fraction
    for one in fractions.values() if isinstance(fractions, dict) else (fractions or 0.0,):
        if not 0 <= one <= 1:
            return f"keep_fraction = {one:g} is no fraction between 0 and 1"
    for whole in stage.keep.values() if isinstance(stage.keep, dict) else (stage.keep or 0,):
        if whole < 0:
            return f"keep = {whole} is negative"
    if stage.band is not None and not 0 <= stage.band[0] < stage.band[1] <= 1:
        return f"band = {list(stage.band)}: two fractions between 0 and 1, the lower one first"
    if isinstance(stage.quotas, dict) and stage.per is None:
        return f"{given[0]} has quotas: name the column that they are about, per: source"
    if stage.unit == "tokens" and (stage.tokenizer is None) == (stage.token_column is None):
        return "unit: tokens needs either tokenizer: FILE or token_column: COLUMN"
    if stage.unit != "tokens" and (stage.tokenizer or stage.token_column):
        return "tokenizer and token_column are for unit: tokens"
    return _misfit(stage, given[0])


def _misfit(stage: Select, way: str) -> str | None:
    if stage.max_per and (stage.max_per.documents is None) == (stage.max_per.fraction is None):
        return "max_per needs either documents or fraction"
    cut = way in ("threshold", "band")
    if stage.sample == "gumbel" and cut:
        return f"{way} draws no sample: sample: gumbel is for keep_fraction and keep"
    if stage.sample == "gumbel" and stage.tie_by:
        return "tie_by decides between equal scores, and a sample has none"
    if cut and (stage.ties == "exact" or stage.tie_by):
        return f"{way} keeps all documents of a score: ties and tie_by are for keep_fraction, keep"
    if way == "band" and stage.prefer == "lowest":
        return "a band is counted from the lowest score on: leave out prefer: lowest"
    if way == "band" and stage.max_per:
        return "max_per is for keep_fraction, keep and threshold"
    if stage.error is not None and stage.by_row:
        return "error is for ranks by score alone: leave out ties: exact, tie_by and max_per"
    return None
