"""Which ways of selecting data find what is wanted, and does a model learn more from it?

A pool of real English text: a tenth of its bytes is encyclopedia (the target), another tenth are
decoys, passages of the same encyclopedia whose words stand in random order, and the rest is mail,
law, novels, manual pages, news and so on, in pieces as long as the passages. Every selector sees
300 further passages of the target, and picks a tenth of the pool's bytes. Then a compact model is
trained on what each has picked, on equally many tokens, and measured on passages that nobody has
seen.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

import tamis
from benchmarks.arms import VOCABULARY, Measured, document_nats, measure_arms, train_model
from benchmarks.harness import table
from tamis.fit import Fit
from tamis.pipeline.stages import Stage
from tamis.scorers.betr import FitBetr
from tamis.scorers.combine import Combine
from tamis.scorers.dsir import FitDsir
from tamis.scorers.fasttext_fit import FitFastText
from tamis.scorers.fasttext_training import FastTextSettings
from tamis.scorers.perplexity_fit import FitPerplexity
from tamis.scorers.preselect import FitPreSelect
from tamis.scorers.score import Score
from tamis.scorers.select import Select
from tamis.trainers.tokenizer import train_tokenizer

TARGET = "py:boolq"
REFERENCE = "py:enwiki"
"""What a model of good text is trained on, for perplexities."""
LEFT_OUT = {TARGET, REFERENCE, "py:quac"}
"""The rest of the pool has no encyclopedia."""
PIECE = 800
"""Characters of the longest piece."""
POOL_BYTES = 12_000_000
KEEP = 0.1
EXAMPLES, HELD_OUT = 300, 300
TOKENS = 300_000
SEEDS = (0, 1, 2)
MODELS, LADDER_TOKENS, SEED_EVERY = 6, 150_000, 3
SMALL = FastTextSettings(wordNgrams=2, epoch=25, lr=0.5, dim=16, bucket=200_000)
"""What a few hundred examples allow; published recipes are for hundreds of thousands."""
ARMS: dict[str, dict[str, object]] = {
    "fastText": {"by": "fasttext"},
    "DSIR": {"by": "dsir"},
    "DSIR, Gumbel": {"by": "dsir", "sample": "gumbel"},
    "BETR": {"by": "betr"},
    "BETR, mean of logs": {"by": "betr_mean"},
    "PreSelect": {"by": "preselect"},
    "perplexity, lowest": {"by": "perplexity", "prefer": "lowest"},
    "compression, hardest": {"by": "difficulty.compression_ratio", "prefer": "lowest"},
    "fastText and perplexity, the worse rank": {"by": "both"},
}


@dataclass(frozen=True)
class Pool:
    """What is selected from, and what selectors are told."""

    documents: pa.Table
    """id, text, source, and ``kind``: target, decoy or rest."""
    examples: list[str]
    """Of the target, for the selectors."""
    held_out: list[str]
    """Of the target, for the measurement."""
    others: list[str]
    """Of the rest, and not in the pool: what selectors learn to tell the target from."""
    reference: list[str]


def make_pool(lines: Iterable[bytes], size: int = POOL_BYTES, seed: int = 0) -> Pool:
    """The pool of ``size`` bytes from the lines of the bench corpus."""
    dice = random.Random(seed)
    by_package: dict[str, list[str]] = {}
    for record in map(orjson.loads, lines):
        if record["lang"] == "en" and record["text"]:
            by_package.setdefault(record["package"], []).extend(pieces(record["text"]))
    target = by_package[TARGET]
    dice.shuffle(target)
    examples, held_out = target[:EXAMPLES], target[EXAMPLES : EXAMPLES + HELD_OUT]
    planted, left = take_bytes(target[EXAMPLES + HELD_OUT :], size * KEEP)
    decoys, _ = take_bytes(left, size * KEEP)
    rest = [
        (text, package)
        for package, texts in sorted(by_package.items())
        if package not in LEFT_OUT
        for text in texts
    ]
    dice.shuffle(rest)
    chosen, unused = take_bytes([text for text, _ in rest], size * (1 - 2 * KEEP))
    rows = [(text, TARGET, "target") for text in planted]
    rows += [(shuffled(text, dice), "decoys", "decoy") for text in decoys]
    rows += [(text, package, "rest") for text, package in rest[: len(chosen)]]
    dice.shuffle(rows)
    texts, sources, kinds = (list(column) for column in zip(*rows, strict=True))
    table = pa.table(
        {
            "id": [f"{number:06d}" for number in range(len(rows))],
            "text": pa.array(texts, pa.large_string()),
            "source": sources,
            "kind": kinds,
        }
    )
    return Pool(table, examples, held_out, unused[:4000], by_package[REFERENCE])


def pieces(text: str) -> Iterable[str]:
    """The text in pieces of whole words, none much longer than ``PIECE``."""
    while len(text) > PIECE:
        cut = max(text.rfind(" ", PIECE // 2, PIECE), text.rfind("\n", PIECE // 2, PIECE))
        cut = PIECE if cut < 0 else cut
        yield text[:cut].strip()
        text = text[cut:]
    if len(text.strip()) > PIECE // 4:
        yield text.strip()


def take_bytes(texts: Sequence[str], size: float) -> tuple[list[str], list[str]]:
    """The first texts, up to so many bytes, and the others."""
    ends = np.cumsum([len(text.encode()) for text in texts])
    count = int(np.searchsorted(ends, size))
    return list(texts[:count]), list(texts[count:])


def shuffled(text: str, dice: random.Random) -> str:
    words = text.split()
    dice.shuffle(words)
    return " ".join(words)


def write_jsonl(path: Path, rows: Iterable[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_texts(path: Path, texts: Iterable[str]) -> str:
    return write_jsonl(path, ({"id": str(n), "text": text} for n, text in enumerate(texts)))


class Selectors:
    """The scorers, each trained on what all may know."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.pool, self.folder = pool, folder
        self.path = folder / "pool.parquet"
        pq.write_table(pool.documents, self.path)
        self.examples = write_texts(folder / "examples.jsonl", pool.examples)
        self.others = write_texts(folder / "others.jsonl", pool.others)
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, fit: Fit) -> Path:
        began = time.process_time()
        fit.fit()
        self.seconds[name] = time.process_time() - began
        return fit.output

    def stages(self) -> dict[str, Stage]:
        """The scorers by the names of their columns."""
        classifier = self.timed(
            "fasttext",
            FitFastText(
                output=self.folder / "fasttext.bin",
                positives=self.examples,
                negatives=self.others,
                training=SMALL,
            ),
        )
        weights = self.timed(
            "dsir",
            FitDsir(
                output=self.folder / "dsir.npz",
                target=self.examples,
                raw=str(self.path),
                smoothing=0.1,
                min_tokens=20,
            ),
        )
        ngrams = self.timed(
            "perplexity",
            FitPerplexity(
                output=self.folder / "perplexity.arpa",
                data=(write_texts(self.folder / "reference.jsonl", self.pool.reference),),
                order=3,
            ),
        )
        return {
            "fasttext": Score(with_=classifier, name="fasttext"),
            "dsir": Score(with_=weights, name="dsir"),
            "betr": Score(with_=self.betr("betr", "max"), name="betr"),
            "betr_mean": Score(with_=self.betr("betr_mean", "mean_log"), name="betr_mean"),
            "preselect": Score(with_=self.preselect(), name="preselect"),
            "perplexity": Score(with_=ngrams, name="perplexity"),
            "difficulty": Score(with_="difficulty", name="difficulty"),
        }

    def betr(self, name: str, aggregation: str) -> Path:
        """The examples as questions: how a passage goes on."""
        items = []
        for text in self.pool.examples:
            head, _, tail = text.partition(". ")
            items.append({"question": head + ".", "answer": tail or head})
        asked = write_jsonl(self.folder / "items.jsonl", items)
        fit = FitBetr.model_validate(
            {
                "output": self.folder / f"{name}.bin",
                "sample": str(self.path),
                "documents": None,
                "benchmarks": {"passages": asked},
                "embedding": "hashed",
                "aggregation": aggregation,
                "training": SMALL,
            }
        )
        return self.timed(name, fit)

    def preselect(self) -> Path:
        """Six models that were trained on other mixtures of sources, and rated by how well they
        predict the examples.
        """
        began = time.process_time()
        tokenizer = train_tokenizer([*self.pool.others, *self.pool.examples], VOCABULARY)
        tokenizer.save(self.folder / "tokenizer")
        random_ = np.random.default_rng(0)
        models = []
        for number in range(MODELS):
            share = random_.dirichlet(np.ones(2))[0]
            texts = self.mixture(share, number)
            path = self.folder / f"ladder-{number}.jsonl"
            write_texts(path, texts)
            model = train_model(path, self.folder / "tokenizer", LADDER_TOKENS, number) / "model"
            nats = document_nats(model, self.pool.examples).sum()
            size = sum(len(text.encode()) for text in self.pool.examples)
            models.append({"model": str(model), "benchmark": -float(nats / size)})
        fit = FitPreSelect.model_validate(
            {
                "output": self.folder / "preselect.bin",
                "data": write_texts(self.folder / "seed.jsonl", self.seed_documents()),
                "models": models,
                "min_tokens": 100,
                "training": SMALL,
            }
        )
        fit.fit()
        self.seconds["preselect"] = time.process_time() - began
        return fit.output

    def mixture(self, share: float, number: int) -> list[str]:
        """Texts for a model of the ladder: more or less of general encyclopedia, and some of the
        other sources.
        """
        dice = random.Random(number)
        reference, others = list(self.pool.reference), list(self.pool.others)
        dice.shuffle(reference)
        dice.shuffle(others)
        count = min(len(reference), len(others))
        return reference[: int(share * count)] + others[: int((1 - share) * count)]

    def seed_documents(self) -> list[str]:
        """A sample of the pool that is judged by the losses of the models."""
        texts: list[str] = self.pool.documents["text"].to_pylist()
        return texts[::SEED_EVERY]


def select_all(pool: Pool, folder: Path) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The ids that each arm picks, and the CPU seconds that its scorer took to train."""
    selectors = Selectors(pool, folder / "scorers")
    stages = list(selectors.stages().values())
    together = Combine.model_validate(
        {
            "name": "both",
            "columns": {"fasttext.score": {}, "perplexity.score": {"better": "lower"}},
            "by": "min",
        }
    )
    scored = folder / "scored"
    tamis.Pipeline(tamis.read(selectors.path), [*stages, together], tamis.write(scored)).run()
    picked = {}
    for number, (arm, settings) in enumerate(ARMS.items()):
        output = folder / f"arm-{number}"
        select = Select.model_validate({**settings, "keep_fraction": KEEP, "unit": "bytes"})
        tamis.Pipeline(tamis.read(f"{scored}/data"), [select], tamis.write(output)).run()
        kept = pq.read_table(f"{output}/data", columns=["id"])
        picked[arm] = kept["id"].to_pylist()
    return picked, selectors.seconds


def baselines(pool: Pool) -> dict[str, list[str]]:
    """The ids of the target, and of a tenth of the pool at random."""
    documents = pool.documents.to_pylist()
    random.Random(1).shuffle(documents)
    size = sum(len(one["text"].encode()) for one in documents)
    drawn, _ = take_bytes([one["text"] for one in documents], KEEP * size)
    oracle = [one["id"] for one in documents if one["kind"] == "target"]
    return {"oracle": oracle, "random": [one["id"] for one in documents[: len(drawn)]]}


def shares(pool: Pool, ids: Sequence[str]) -> dict[str, float]:
    """Of the bytes that were picked: the part that is target, decoy and rest; ``recall`` is the
    part of the target that was picked.
    """
    chosen = set(ids)
    found = dict.fromkeys(("target", "decoy", "rest"), 0)
    target = 0
    for one in pool.documents.to_pylist():
        size = len(one["text"].encode())
        target += size if one["kind"] == "target" else 0
        found[one["kind"]] += size if one["id"] in chosen else 0
    total = max(sum(found.values()), 1)
    return {name: part / total for name, part in found.items()} | {
        "recall": found["target"] / max(target, 1)
    }


def run(corpus: Path, tokens: int = TOKENS, seeds: Sequence[int] = SEEDS) -> str:
    """The section of the results."""
    with corpus.open("rb") as file:
        lines = [line for line in file if orjson.loads(line).get("text") is not None]
    pool = make_pool(lines)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picked, seconds = select_all(pool, folder)
        picked = baselines(pool) | picked
        texts = {one["id"]: one["text"] for one in pool.documents.to_pylist()}
        arms = {arm: [texts[one] for one in ids] for arm, ids in picked.items()}
        measured = measure_arms(
            arms, pool.held_out, tokens, seeds, folder / "models", arms["random"]
        )
    return report(pool, picked, measured, seconds, tokens, seeds)


def report(
    pool: Pool,
    picked: dict[str, list[str]],
    measured: Measured,
    seconds: dict[str, float],
    tokens: int,
    seeds: Sequence[int],
) -> str:
    """What each arm picked, and what a model learned of it."""
    rows = []
    order = sorted(picked, key=measured.bits_per_byte)
    for arm in order:
        found = shares(pool, picked[arm])
        gain, low, high = measured.gain(arm, "random")
        key = str(ARMS.get(arm, {}).get("by", ""))
        rows.append(
            [
                arm,
                *(f"{found[one]:.1%}" for one in ("target", "decoy", "recall")),
                f"{measured.bits_per_byte(arm):.3f}",
                "" if arm == "random" else f"{gain:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{seconds[key]:.0f}" if key in seconds else "",
            ]
        )
    header = [
        "picked by", "target", "decoys", "recall of the target", "bits per byte",
        "better than random by", "training of the scorer, CPU s",
    ]  # fmt: skip
    size = sum(len(text.encode()) for text in pool.documents["text"].to_pylist())
    return (
        "## Selection: a planted truth\n\n"
        f"A pool of {pool.documents.num_rows:,} pieces of real English text ({size / 1e6:.0f} MB), "
        "of which a tenth is encyclopedia (the target) and a tenth decoys: other passages of it "
        "with their words in random order. Every scorer is told the same 300 passages, each picks "
        f"a tenth of the bytes. A compact model is trained on {tokens:,} tokens of what was "
        f"picked, with {len(seeds)} seeds, and measured on 300 other passages; intervals of 95 % "
        "are over seeds and passages, paired with random.\n\n"
        f"{table(header, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    arguments = parser.parse_args()
    print(run(arguments.corpus, arguments.tokens, range(arguments.seeds)))


if __name__ == "__main__":
    main()
