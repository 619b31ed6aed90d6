"""DSIR: how much more likely a document's n-grams are in a target corpus than in the raw one.

Source: Xie et al. 2023 (arXiv:2302.03169) and its released code: hashed bags of n-grams
(``hashed_ngrams``), p from the target and q from the raw corpus, and of a document

    log weight = sum over buckets b of count_b * (log(p_b + 1e-8) - log(q_b + 1e-8))

The released code then samples without replacement with probabilities proportional to the weights,
by Gumbel top-k: ``select: {by: dsir, sample: gumbel, ...}``. With whole documents the log weights
are hundreds of nats apart and the noise decides nothing; and as they add up over tokens, long
documents hold both ends. ``per_token`` divides them by the tokens, which the paper does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from tamis.filters.once import once
from tamis.fit import Fit
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.stages import Measure, Measures, Quantity, count
from tamis.scorers.arrays import load_arrays, save_arrays
from tamis.scorers.artefact import write_facts
from tamis.scorers.hashed_ngrams import MOST_BUCKETS, MOST_NGRAMS, ngram_counts, ngram_sums
from tamis.scorers.reading import Corpus

_TINY = 1e-8
# The released code stops at so many n-grams a bucket of the raw corpus.
_NGRAMS_A_BUCKET = 100_000
_ONLY = "target"


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _by_name(value: Any) -> Any:
    """Paths of one target as those of the target ``target``."""
    return value if isinstance(value, dict) else {_ONLY: value}


Paths = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_many)]
Targets = Annotated[dict[str, Paths], Field(min_length=1), BeforeValidator(_by_name)]


@dataclass(frozen=True, eq=False)
class DsirModel:
    """N-gram counts of one or more target corpora and of a raw one."""

    ngrams: int
    smoothing: float
    """Added to every count of a target."""
    targets: Mapping[str, NDArray[np.int64]]
    """By name; counts by bucket."""
    raw: NDArray[np.int64]

    def log_ratios(self, target: str) -> NDArray[np.float64]:
        """For each bucket log((p + 1e-8) / (q + 1e-8))."""
        p = _shares(self.targets[target] + self.smoothing)
        ratios: NDArray[np.float64] = np.log(p + _TINY) - np.log(_shares(self.raw) + _TINY)
        return ratios

    def divergence(self, target: str) -> float:
        """KL(target || raw) in nats over the buckets, both with 1e-8 added."""
        p = _shares(self.targets[target] + self.smoothing)
        return float(p @ self.log_ratios(target))

    def unseen(self, target: str) -> float:
        """The share of the raw corpus' n-grams in buckets in which the target has none."""
        return float(self.raw[self.targets[target] == 0].sum() / self.raw.sum())

    def save(self, path: Path) -> None:
        """Write an ``.npz``; equal models give equal bytes.

        Raises:
            TamisError: if it cannot be written.
        """
        header = {
            "ngrams": self.ngrams,
            "smoothing": self.smoothing,
            "targets": list(self.targets),
        }
        arrays = {"targets": np.array(list(self.targets.values())), "raw": self.raw}
        save_arrays(path, Dsir.kind, header, arrays)

    @classmethod
    def load(cls, path: Path) -> DsirModel:
        """Read what ``save`` wrote.

        Raises:
            TamisError: if the file is damaged, or something else.
        """
        stored = load_arrays(path, Dsir.kind, ("targets", "raw"))
        targets, raw = stored.arrays["targets"], stored.arrays["raw"]
        names, ngrams = list(map(str, stored.header["targets"])), int(stored.header["ngrams"])
        fits = raw.ndim == 1 and targets.shape == (len(names), len(raw))
        if not (fits and 1 <= ngrams <= MOST_NGRAMS and 1 < len(raw) <= MOST_BUCKETS):
            raise TamisError(f"{path} is damaged: its counts do not fit to each other")
        by_name = dict(zip(names, targets, strict=True))
        return cls(ngrams, float(stored.header["smoothing"]), by_name, raw)


def _shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


class Dsir(Measure):
    """Adds the log importance weight of each document: how much more likely its word n-grams are in
    a target corpus than in the raw one. ``tamis fit dsir`` makes the model.

    The scores of a document of fewer than ``min_tokens`` are NaN, and selection leaves it out.
    """

    kind: ClassVar[str] = "dsir"

    model: Path
    """What ``tamis fit dsir`` wrote."""
    target: str | None = None
    """Of a model of several targets, the one to score for."""
    min_tokens: int = Field(default=100, ge=1)
    length_normalize: bool = False
    """Let ``score`` be ``per_token``, so that length alone makes no document good or bad; not in
    the paper.
    """

    def provides(self) -> tuple[Quantity, ...]:
        by_length = "log importance weight / tokens"
        score = by_length if self.length_normalize else "log importance weight, in nats"
        return (
            Quantity("score", "score", f"{score}; none below min_tokens", low=float("-inf")),
            Quantity("per_token", "score", by_length, low=float("-inf")),
            count("tokens", "words and runs of symbols"),
        )

    def models(self) -> tuple[Path, ...]:
        return (self.model,)

    def measure(self, documents: Documents) -> Measures:
        """``score``, ``per_token`` and ``tokens``.

        Raises:
            TamisError: if the model is none, or has no such target.
        """
        model = once(DsirModel.load, self.model, "there is no model {path}")
        ratios = model.log_ratios(self._target(model))
        found = ngram_sums(documents, model.ngrams, ratios[:, None])
        weight = np.where(found.tokens >= self.min_tokens, found.sums[:, 0], np.nan)
        per_token = weight / np.maximum(found.tokens, 1)
        score = per_token if self.length_normalize else weight
        return {"score": score, "per_token": per_token, "tokens": found.tokens}

    def _target(self, model: DsirModel) -> str:
        names = list(model.targets)
        if self.target is None and len(names) == 1:
            return names[0]
        if self.target is None:
            raise TamisError(
                f"{self.name}: {self.model} has {len(names)} targets; name one, target: "
                f"{', '.join(names)}"
            )
        if self.target in model.targets:
            return self.target
        raise TamisError(
            f"{self.name}.target = {self.target}: {self.model} has no such target"
            f"{nearest(self.target, names)}; it has {', '.join(names)}"
        )


class FitDsir(Fit):
    """Counts the hashed n-grams of target and raw corpus."""

    kind: ClassVar[str] = "dsir"

    target: Targets
    """Files of the target corpus (or the folder of a run); several targets by name, ``{books:
    [...], wiki: [...]}``, each with weights of its own.
    """
    raw: Paths
    """Files of the corpus to select from, or a sample of it."""
    buckets: int = Field(default=10_000, ge=2, le=MOST_BUCKETS)
    ngrams: int = Field(default=2, ge=1, le=MOST_NGRAMS)
    """N-grams of 1 to so many tokens."""
    smoothing: float = Field(default=0.0, ge=0)
    """Added to the target's count of every bucket. Without it an n-gram that a small target happens
    not to have takes some 10 nats from a document: 0.01 to 1 is right below a million tokens.
    """
    raw_ngrams: int | None = Field(default=None, ge=1)
    """Read the raw corpus until there are so many n-grams; None for 100,000 a bucket."""
    min_tokens: int = Field(default=100, ge=1)
    length_normalize: bool = False
    """This and ``min_tokens`` are settings of the stage, kept beside the model."""

    def fit(self) -> str:
        most = self.raw_ngrams or _NGRAMS_A_BUCKET * self.buckets
        facts: dict[str, Any] = {}
        targets = {}
        for name, paths in self.target.items():
            targets[name], facts[name] = self._count(paths, f"target {name}", None)
        raw, facts["raw"] = self._count(self.raw, "raw", most)
        model = DsirModel(self.ngrams, self.smoothing, targets, raw)
        lines = [f"raw: {_amount(facts['raw'])}"]
        for name in targets:
            facts[name] |= {
                "kl_from_raw": model.divergence(name),
                "raw_in_unseen_buckets": model.unseen(name),
            }
            lines.append(
                f"{name}: {_amount(facts[name])}; KL({name} || raw) {model.divergence(name):.3f} "
                f"nats; {model.unseen(name):.2%} of the raw n-grams are in buckets without any of "
                f"{name}" + self._advice(model.unseen(name))
            )
        model.save(self.output)
        settings = {"min_tokens": self.min_tokens, "length_normalize": self.length_normalize}
        write_facts(self.output, "dsir", settings, self, facts)
        return "\n".join([*lines, str(self.output)])

    def _advice(self, unseen: float) -> str:
        if unseen <= 0.001 or self.smoothing > 0:
            return ""
        return ", each of which costs a document 5 to 18 nats: set smoothing to 0.01 or more"

    def _count(
        self, paths: Sequence[str], what: str, most: int | None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        corpus = Corpus(paths, what)
        counts = np.zeros(self.buckets, np.int64)
        documents = 0
        for batch in corpus:
            counts += ngram_counts(batch, self.ngrams, self.buckets)
            documents += len(batch)
            if most is not None and counts.sum() >= most:
                break
        if not counts.any():
            raise TamisError(f"{what}: there is not one word in {', '.join(paths)}")
        facts = {"documents": documents, "ngrams": int(counts.sum())}
        return counts, {**facts, "unreadable_documents": corpus.unreadable}

    def model_post_init(self, context: object, /) -> None:
        if self.output.suffix != ".npz":
            raise RecipeError(f"output = {self.output}: the name of a dsir model ends in .npz")
        if "raw" in self.target:
            raise RecipeError("target: call it something else than raw")


def _amount(facts: Mapping[str, Any]) -> str:
    unreadable = facts["unreadable_documents"]
    passed_over = f" ({unreadable:,} more could not be read)" if unreadable else ""
    return f"{facts['documents']:,} documents{passed_over}, {facts['ngrams']:,} n-grams"


def dsir_scores(
    texts: Sequence[str],
    target: Sequence[str],
    raw: Sequence[str],
    *,
    smoothing: float = 0.0,
    ngrams: int = 2,
    buckets: int = 10_000,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(log importance weights, tokens) of the texts, by the n-grams of a target and a raw corpus in
    memory; texts of any length have a weight.
    """
    counted = [ngram_counts(_in_memory(one), ngrams, buckets) for one in (target, raw)]
    model = DsirModel(ngrams, smoothing, {_ONLY: counted[0]}, counted[1])
    found = ngram_sums(_in_memory(texts), ngrams, model.log_ratios(_ONLY)[:, None])
    return found.sums[:, 0], found.tokens


def _in_memory(texts: Sequence[str]) -> Documents:
    return Documents(pa.record_batch({TEXT: pa.array(texts, pa.large_string())}))


def choose_for_targets(
    scores: NDArray[np.float64],
    amounts: Sequence[int],
    seed: int | None = 0,
) -> NDArray[np.int64]:
    """Which target each document is chosen for, -1 for none: ``separate_targets`` of the released
    code.

    ``scores`` is (documents, targets) of log weights; of the first target the ``amounts[0]`` best
    documents by log weight + Gumbel(0, 1) are taken (by log weight alone if ``seed`` is None), then
    of the next target among those that are left, and so on. NaN is never chosen; of equal keys the
    earlier document is.

    Raises:
        TamisError: if there are fewer documents with a score than are wanted.
    """
    chosen = np.full(len(scores), -1)
    generator = None if seed is None else np.random.default_rng(seed)
    for target, amount in enumerate(amounts):
        keys = scores[:, target].astype(np.float64)
        if generator is not None:
            keys = keys + generator.gumbel(size=len(keys))
        free = np.flatnonzero((chosen < 0) & ~np.isnan(keys))
        if len(free) < amount:
            raise TamisError(
                f"target {target + 1} is to have {amount:,} documents, and {len(free):,} with a "
                "score are left"
            )
        best = free[np.argsort(-keys[free], kind="stable")[:amount]]
        chosen[best] = target
    return chosen


def proportional_amounts(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` documents divided among the targets by weight (the released code takes the tokens
    of the targets): whole numbers that add up to it, by largest remainder.
    """
    exact = total * np.asarray(weights, np.float64) / np.sum(weights)
    amounts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - amounts), kind="stable")
    amounts[order[: total - int(amounts.sum())]] += 1
    return [int(one) for one in amounts]
