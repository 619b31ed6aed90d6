"""BETR: documents like the examples of benchmarks (benchmark-targeted ranking).

    sample: crawl/*.parquet
    benchmarks: {arc: arc_train.jsonl, sciq: sciq_train.jsonl}
    embedding: {sentence_transformers: models/snowflake-arctic-embed-l-v2.0}
    output: models/betr.bin

Source: Mizrahi et al. 2025 (arXiv:2507.12466), 3.3 to 3.6 and Appendix A. A sample of the corpus
and the examples of the benchmarks are embedded in one space; every example ranks the documents of
the sample by cosine, and a document's score is its best rank. The best tenth of the documents are
the positive examples of a fastText classifier, as many of the others its negative ones, and the
classifier scores the whole corpus: select a share of the tokens by it (``filter_rate``).

With ``scorer: ranks`` there is no classifier: the stage ``betr`` embeds every document, and gives
the best rank that it would have had in the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.embedding import Column, Embedder, Embedding, Function, read_embedder
from tamis.embedding.embedder import unit_vectors
from tamis.filters.toxicity.training import as_documents
from tamis.fit import Fit
from tamis.gpu import Device, why_unavailable
from tamis.gpu.ranks import ranks_on_ladders
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.stages import Measures, Quantity
from tamis.pipeline.storage import digest
from tamis.scorers.arrays import Stored, load_arrays, save_arrays
from tamis.scorers.artefact import write_facts
from tamis.scorers.benchmark_examples import read_examples
from tamis.scorers.fasttext import FastText
from tamis.scorers.fasttext_training import FastTextSettings, fasttext_library, train_classifier
from tamis.scorers.nearest_ranks import Aggregation, BestRanks, best_ranks, mean_scores
from tamis.scorers.on_embeddings import OnEmbeddings
from tamis.scorers.reading import Corpus
from tamis.scorers.sample import PIECE, Sample, draw_sample, nonzero_vectors, stored_vectors

Targets = Literal["examples", "benchmark_centroids", "global_centroid"]
Pool = Literal["nemotron-cc", "dclm-refinedweb"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

POSITIVE, NEGATIVE = "hq", "cc"
_LAWS: dict[Pool, tuple[float, float]] = {
    "nemotron-cc": (4e-5, 0.25),
    "dclm-refinedweb": (6e-3, 0.14),
}
_BLOCK = 256
"""Texts that are embedded at a time."""


class Ranking(NamedTuple):
    """The documents of a sample, ranked by their nearness to benchmark examples."""

    score: Float64
    """Of each document, the higher the nearer; NaN where the document has no words. By ``max`` the
    log2 of 1 / its best rank, as far down as the rankings were looked at; see ``nearest_ranks``.
    """
    positive: Int64
    """The numbers of the documents of the wanted share, best first."""
    contributions: Mapping[str, float]
    """The share of the positive documents that owe their best rank to each benchmark; empty for the
    means, in which all have a part.
    """
    best: BestRanks | None
    """The ranks behind the scores of ``max``, over the documents with words."""


def filter_rate(compute_flops: float, pool: Pool = "nemotron-cc") -> float:
    """The share of the tokens to keep for a compute-optimal training of so many FLOPs: 4e-5 C^0.25
    percent of Nemotron-CC, 6e-3 C^0.14 percent of DCLM-RefinedWeb (6.2, D.4), at most 1.

    Fitted from 1e19 to 1e23 FLOPs with trainings that kept 3, 10, 30 and 100 %.

    Raises:
        ValueError: for a compute of zero or less, or another pool.
    """
    if not compute_flops > 0:
        raise ValueError(f"a training takes more than {compute_flops:g} FLOPs")
    if pool not in _LAWS:
        raise ValueError(f"there is no law for {pool}; there is {', '.join(_LAWS)}")
    factor, power = _LAWS[pool]
    rate: float = factor * compute_flops**power / 100
    return min(1.0, rate)


def rank_texts(
    texts: Sequence[str],
    benchmarks: Mapping[str, Sequence[str]],
    embedding: Any = "hashed",
    share: float = 0.1,
    aggregation: Aggregation = "max",
    targets: Targets = "examples",
) -> Ranking:
    """Rank texts by their nearness to benchmark examples, in memory.

    ``embedding`` is an embedder or a setting of one; ``benchmarks`` has the texts of the examples
    of each (``benchmark_examples.example_text``), all of which count.

    Raises:
        TamisError: if nothing can be embedded.
    """
    embedder = read_embedder(embedding)
    vectors = {name: embed_texts(embedder, examples) for name, examples in benchmarks.items()}
    return rank_vectors(embed_texts(embedder, texts), vectors, share, aggregation, targets)


def rank_vectors(
    documents: Any,
    benchmarks: Mapping[str, Float32],
    share: float = 0.1,
    aggregation: Aggregation = "max",
    targets: Targets = "examples",
    device: Device = "cpu",
    scratch: Path | None = None,
) -> Ranking:
    """Rank the unit vectors of documents, an array or a memory map of shape (m, d), by those of the
    examples of each benchmark, (n, d). Vectors of zeros, of texts without words, take no part.

    ``targets`` are what the documents are ranked by: each example, as published, or one centroid of
    each benchmark or of them all, which the paper compares itself with. If documents are without
    words, the others are copied to ``scratch``, or in memory.

    Raises:
        TamisError: if there are no examples with words, or fewer documents than a share needs.
    """
    examples, names = _targets(benchmarks, targets)
    rows, vectors = nonzero_vectors(documents, scratch)
    wanted = round(share * len(rows))
    if not wanted:
        raise TamisError(
            f"a share of {share:g} of {len(rows)} documents with words is not one document"
        )
    score = np.full(len(documents), np.nan)
    if aggregation != "max":
        score[rows] = mean_scores(examples, vectors, aggregation, device)
        order = np.argsort(-score[rows], kind="stable")[:wanted]
        return Ranking(score, rows[order], {}, None)
    best = best_ranks(examples, vectors, wanted, device)
    score[rows] = best.scores()
    order = best.order()[:wanted]
    owed = Counter(names[number] for number in best.example[order])
    contributions = {name: owed[name] / wanted for name in dict.fromkeys(names)}
    return Ranking(score, rows[order], contributions, best)


def _targets(benchmarks: Mapping[str, Float32], targets: Targets) -> tuple[Float32, list[str]]:
    """(vectors, the benchmark of each)."""
    some = {name: vectors[vectors.any(axis=1)] for name, vectors in benchmarks.items()}
    some = {name: vectors for name, vectors in some.items() if len(vectors)}
    if not some:
        raise TamisError("there are no benchmark examples with words")
    if targets == "benchmark_centroids":
        some = {name: vectors.mean(axis=0)[None] for name, vectors in some.items()}
    if targets == "global_centroid":
        some = {"all": np.concatenate(list(some.values())).mean(axis=0)[None]}
    names = [name for name, vectors in some.items() for _ in vectors]
    return unit_vectors(np.concatenate(list(some.values()))), names


def embed_texts(embedder: Embedder, texts: Sequence[str]) -> Float32:
    """The unit vectors of texts, shape (n, d), some hundred at a time.

    Raises:
        TamisError: if one of them cannot be embedded.
    """
    try:
        parts = [
            unit_vectors(embedder.embed_texts(texts[first : first + _BLOCK]))
            for first in range(0, len(texts), _BLOCK)
        ]
    except ValueError as error:
        raise TamisError(f"a text cannot be embedded: {error}") from error
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _load(path: Path) -> Stored:
    return load_arrays(path, "betr", ("examples", "ladders"))


class Betr(OnEmbeddings):
    """Adds the best rank that a document would have among those of a sample, by its similarity to
    the examples of benchmarks.

    The similarity to each example is compared with those of the documents of the sample. A document
    that is among the first of none has the rank behind the last that is known, and no similarity
    (NaN). A document without a word has no score either. Many documents have the same rank:
    ``tie_by`` their similarity when you select.
    """

    kind: ClassVar[str] = "betr"
    width_of: ClassVar[str] = "examples"
    load_model: ClassVar[Callable[[Path], Stored]] = _load

    model: Path
    """What ``tamis fit betr`` with ``scorer: ranks`` wrote (``.npz``)."""
    embedding: Embedding | None = None
    """Where the embedder is here, if not where it was: it has to be the same."""
    device: Device = "cpu"
    """Where similarities are computed; ``cuda`` needs the extra ``gpu``."""

    def provides(self) -> tuple[Quantity, ...]:
        return (
            Quantity("score", "score", "log2 of 1 / rank", -40.0, 0.0),
            Quantity("rank", "score", "best rank over all examples of the benchmarks", 1.0),
            Quantity("similarity", "score", "cosine to the example that gives it", -1.0, 1.0),
        )

    def models(self) -> tuple[Path, ...]:
        if self.device == "cuda" and (reason := why_unavailable()):
            raise RecipeError(f"{self.name}: {reason}")
        return super().models()

    def measure(self, documents: Documents) -> Measures:
        rows, vectors = self.vectors_of(documents)
        rank, similarity = np.full((2, len(documents)), np.nan)
        if len(rows):
            arrays = self._stored().arrays
            placed = ranks_on_ladders(arrays["ladders"], arrays["examples"], vectors, self.device)
            rank[rows], similarity[rows] = placed.rank, placed.similarity
        return {"score": 0.0 - np.log2(rank), "rank": rank, "similarity": similarity}


class FitBetr(Fit):
    """Ranks a sample by the examples of benchmarks, and trains the scorer of the corpus."""

    kind: ClassVar[str] = "betr"

    sample: str | tuple[str, ...]
    """The corpus: files of any format that a recipe reads, folders, or finished runs."""
    documents: int | None = Field(default=1_000_000, ge=10)
    """How many documents of it are drawn; null for all. The paper takes ten million."""
    benchmarks: dict[str, str] = Field(min_length=1)
    """JSONL files with the examples of each benchmark, of its training part."""
    balance: Literal["equal", "all"] = "equal"
    """``equal``: of each benchmark as many examples as the smallest has; ``all``: all there are."""
    embedding: Embedding
    aggregation: Aggregation = "max"
    targets: Targets = "examples"
    positive_share: float = Field(default=0.1, gt=0, le=0.5)
    """The share of the documents of the sample that are positive examples."""
    scorer: Literal["fasttext", "ranks"] = "fasttext"
    """``fasttext``: a classifier, which is fast; ``ranks``: the stage ``betr``, which embeds every
    document.
    """
    training: FastTextSettings = FastTextSettings.preset("betr")
    held_out: float = Field(default=0.05, gt=0, lt=1)
    """The part of the labelled documents that the classifier is measured on."""
    compute: float | None = Field(default=None, gt=0)
    """FLOPs of the training that the data is for: says which share of the tokens to keep."""
    pool: Pool = "nemotron-cc"
    """Which law says so: that of a corpus which is filtered already (nemotron-cc) or of one that
    hardly is (dclm-refinedweb).
    """
    device: Device = "cpu"
    """Where similarities are computed."""
    seed: int = Field(default=0, ge=0)
    """Of the sample, of the examples that count, and of the negative documents."""
    work: Path | None = None
    """Where the sample and its embeddings are kept. Default: OUTPUT.work."""

    def model_post_init(self, context: object, /) -> None:
        suffix = ".bin" if self.scorer == "fasttext" else ".npz"
        if self.output.suffix != suffix:
            raise RecipeError(
                f"output = {self.output}: with scorer: {self.scorer} the name ends in {suffix}"
            )
        if isinstance(self.embedding, Column | Function):
            raise RecipeError(
                f"embedding: benchmark examples have no {self.embedding.kind}; name a model"
            )
        if self.scorer == "ranks" and self.aggregation != "max":
            raise RecipeError(f"aggregation = {self.aggregation}: scorer: ranks goes with max")
        if self.device == "cuda" and (reason := why_unavailable()):
            raise RecipeError(reason)

    def fit(self) -> str:
        self.embedding.models()
        if self.scorer == "fasttext":
            fasttext_library()
        examples = self._examples()
        sample = self._sample()
        vectors = self._embed(examples, sample.folder / "examples")
        found = rank_vectors(
            sample.vectors(self.embedding),
            vectors,
            self.positive_share,
            self.aggregation,
            self.targets,
            self.device,
            sample.folder / "nonzero.npy",
        )
        facts: dict[str, Any] = {
            "sample": len(sample),
            "read": sample.facts["read"],
            "unreadable": sample.facts["unreadable"],
            "without_words": int(np.isnan(found.score).sum()),
            "examples": {name: len(texts) for name, texts in examples.items()},
            "positive": len(found.positive),
            "contributions": dict(found.contributions),
        }
        if found.best is not None:
            facts["depth"] = found.best.depth
        if self.scorer == "ranks":
            self._save_ranks(found, vectors)
            settings: dict[str, Any] = {}
        else:
            facts |= self._train(sample, found)
            settings = {"label": POSITIVE}
        if self.compute is not None:
            facts["filter_rate"] = filter_rate(self.compute, self.pool)
        stage = "fasttext" if self.scorer == "fasttext" else Betr.kind
        write_facts(self.output, stage, settings, self, facts)
        return _told(self, facts)

    def _examples(self) -> dict[str, list[str]]:
        """The texts of the examples that count, by benchmark."""
        found = {name: read_examples(path) for name, path in self.benchmarks.items()}
        if self.balance == "all":
            return found
        count = min(map(len, found.values()))
        random = np.random.default_rng(self.seed)
        return {
            name: [texts[row] for row in np.sort(random.permutation(len(texts))[:count])]
            for name, texts in found.items()
        }

    def _embed(self, examples: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Float32]:
        """The unit vectors of the examples, kept in the folder like those of the sample."""
        texts = [text for some in examples.values() for text in some]
        rows = [np.arange(len(texts))[first:][:PIECE] for first in range(0, len(texts), PIECE)]
        pieces = ((some, as_documents([texts[row] for row in some])) for some in rows)
        vectors = stored_vectors(pieces, len(texts), self.embedding, folder, digest(texts))
        ends = np.cumsum([len(some) for some in examples.values()])[:-1]
        return dict(zip(examples, np.split(np.asarray(vectors), ends), strict=True))

    def _sample(self) -> Sample:
        paths = (self.sample,) if isinstance(self.sample, str) else self.sample
        folder = self.work or self.output.with_name(self.output.name + ".work")
        return draw_sample(Corpus(paths, "sample"), folder, self.documents, self.seed)

    def _save_ranks(self, found: Ranking, benchmarks: Mapping[str, Float32]) -> None:
        examples, names = _targets(benchmarks, self.targets)
        if found.best is None:
            raise TamisError("the means have no ranks to keep")
        header = {"embedding": self.embedding.settings(), "benchmarks": names}
        arrays: dict[str, NDArray[Any]] = {"examples": examples, "ladders": found.best.ladders}
        save_arrays(self.output, Betr.kind, header, arrays)

    def _train(self, sample: Sample, found: Ranking) -> dict[str, Any]:
        """Train the classifier; how many documents were negative, and how often it is right."""
        random = np.random.default_rng(self.seed)
        others = np.setdiff1d(np.flatnonzero(~np.isnan(found.score)), found.positive)
        count = min(len(found.positive), len(others))
        negative = random.choice(others, count, replace=False)
        label = np.zeros(len(sample), np.int8)
        label[negative], label[found.positive] = -1, 1
        for chosen in (found.positive, negative):
            label[random.choice(chosen, int(self.held_out * len(chosen)), replace=False)] *= 2
        train_classifier(_labelled(sample, label), self.training, self.output)
        facts: dict[str, Any] = {"negative": count}
        facts["held_out"] = int((np.abs(label) == 2).sum())
        if facts["held_out"]:
            facts["accuracy"] = _accuracy(self.output, sample, label)
        return facts


def _labelled(sample: Sample, label: NDArray[np.int8]) -> Iterator[tuple[str, str]]:
    """(label, text) of the documents that are trained on."""
    for numbers, documents in sample.batches():
        for row in np.flatnonzero(np.abs(label[numbers]) == 1):
            name = POSITIVE if label[numbers[row]] > 0 else NEGATIVE
            yield name, documents.text[int(row)].as_py()


def _accuracy(model: Path, sample: Sample, label: NDArray[np.int8]) -> float:
    """How often the classifier is right about the documents that were held out."""
    stage = FastText(model=model, label=POSITIVE)
    right = total = 0
    for numbers, documents in sample.batches():
        rows = np.flatnonzero(np.abs(label[numbers]) == 2)
        if len(rows):
            held = Documents(documents.batch.take(rows))
            score = stage.measure(held)["score"]
            right += int(((score > 0.5) == (label[numbers[rows]] > 0)).sum())
            total += len(rows)
    return right / total


def _told(fit: FitBetr, facts: Mapping[str, Any]) -> str:
    lines = [
        f"{facts['positive']:,} of {facts['sample']:,} documents are positive, by "
        f"{sum(facts['examples'].values()):,} examples of {len(facts['examples'])} benchmarks"
    ]
    width = max(map(len, facts["examples"]))
    for name, part in sorted(facts["contributions"].items(), key=lambda item: -item[1]):
        lines.append(f"  {name:<{width}}  {part:6.1%} of the positive owe it their rank")
    if facts["unreadable"]:
        lines.append(f"{facts['unreadable']:,} documents could not be read")
    if "accuracy" in facts:
        lines.append(
            f"the classifier is right about {facts['accuracy']:.1%} of the {facts['held_out']:,} "
            "documents held out"
        )
    if "filter_rate" in facts:
        lines.append(
            f"for {fit.compute:g} FLOPs keep {facts['filter_rate']:.1%} of the tokens "
            f"(the law of {fit.pool})"
        )
    return "\n".join([*lines, "", str(fit.output)])
