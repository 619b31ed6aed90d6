"""Small models of every kind, trained by the fastText library itself."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tamis.demo import CORPUS

# What it is trained on (few: English or not; numbers: 300 labels), and how.
TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "words": ("many", {}),
    "few_labels": ("few", {"dim": 16}),
    "bigrams": ("many", {"wordNgrams": 2, "bucket": 5000}),
    "few_labels_trigrams": ("few", {"dim": 16, "wordNgrams": 3, "bucket": 5000}),
    "some_labels": ("many", {"dim": 16, "wordNgrams": 2, "bucket": 5000}),
    "few_one_vs_all": ("few", {"dim": 16, "loss": "ova", "wordNgrams": 2, "bucket": 5000}),
    "subwords": ("many", {"minn": 2, "maxn": 4, "bucket": 5000}),
    "one_character": ("many", {"minn": 1, "maxn": 3, "bucket": 5000, "loss": "hs"}),
    "hierarchical": (
        "many",
        {"loss": "hs", "minn": 2, "maxn": 4, "wordNgrams": 2, "bucket": 5000},
    ),
    "numbered": ("numbers", {"loss": "hs", "minn": 2, "maxn": 3, "bucket": 5000}),
    "one_vs_all": ("many", {"loss": "ova", "wordNgrams": 2, "bucket": 5000}),
    "negative_sampling": ("many", {"loss": "ns"}),
}

QUANTISED: dict[str, tuple[str, dict[str, Any]]] = {
    "quantised": ("subwords", {}),
    "quantised_norms": ("few_labels_trigrams", {"qnorm": True, "dsub": 3}),
    "quantised_output": ("numbered", {"qout": True, "dsub": 4}),
    "pruned": ("hierarchical", {"cutoff": 1500, "qnorm": True}),
    "pruned_to_words": ("bigrams", {"cutoff": 400}),
}


@pytest.fixture(scope="session")
def records() -> list[dict[str, Any]]:
    """The documents of the demo corpus."""
    with gzip.open(CORPUS) as lines:
        return [orjson.loads(line) for line in lines]


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> Callable[[str], Path]:
    """The file of a model, trained to tell the languages of the demo corpus, by its name."""
    pytest.importorskip("fasttext")
    folder = tmp_path_factory.mktemp("models")
    for which in ("many", "few", "numbers"):
        write_lines(folder / which, records, which)
    train_all(folder)
    return lambda name: folder / f"{name}.{'ftz' if name in QUANTISED else 'bin'}"


def write_lines(path: Path, records: list[dict[str, Any]], which: str) -> None:
    with path.open("w") as out:
        for number, record in enumerate(records[::2]):
            english = str(record["lang"] == "en").lower()
            label = {"many": record["lang"], "few": english, "numbers": number % 300}[which]
            out.write(f"__label__{label} {' '.join(record['text'].split())[:1500]}\n")


def train_all(folder: Path) -> None:
    import fasttext

    usual = {"dim": 10, "epoch": 2, "thread": 1, "verbose": 0}
    for name, (which, settings) in TRAINING.items():
        model = fasttext.train_supervised(str(folder / which), **usual | settings)
        model.save_model(str(folder / f"{name}.bin"))
    for name, (source, settings) in QUANTISED.items():
        model = fasttext.load_model(str(folder / f"{source}.bin"))
        which = TRAINING[source][0]
        model.quantize(input=str(folder / which), retrain=False, thread=1, **settings)
        model.save_model(str(folder / f"{name}.ftz"))
