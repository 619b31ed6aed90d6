"""fastText models read and applied: equal to the library, on its own files."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamis.filters.fasttext import FastTextModel, collapsed, fasttext_tokens, load_model
from tamis.filters.fasttext import model as model_file
from tamis.filters.fasttext.collapsed import BLOCK, collapse
from tamis.filters.fasttext.kernels import SOFTMAX, fnv
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import TamisError
from tests.filters.fasttext.conftest import QUANTISED, TRAINING

fasttext = pytest.importorskip("fasttext")

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "fasttext.json").read_text())

ODD_TEXTS = [
    "",
    " ",
    "\n\n",
    "word",
    "one two",
    "the end </s> la fin de la page",
    "</s>",
    "__label__en the of",
    "the __label__nothing of",
    "a\x00b\x0bc\x0cd\re\tf",
    "x" * 31 + " " + "x" * 32 + " " + "x" * 33 + " " + "y" * 5000,
    "é日本語🎉" * 3 + " ü",
    "日本語の文章です。" * 40,
    "\u00a0the\u00a0of\u3000and",
    "< > <the> the< >the",
]


def library_scores(library, text: str) -> dict[str, float]:
    """What the library says of a text whose line breaks are spaces."""
    found = library.f.predict(text.replace("\n", " ") + "\n", -1, 0.0, "strict")
    return {label.removeprefix("__label__"): min(score, 1.0) for score, label in found}


def assert_equal_scores(path: Path, texts: list[str], tolerance: float = 1e-5) -> None:
    library, ours = fasttext.load_model(str(path)), FastTextModel.load(path)
    prediction = ours.predict_text(pa.array(texts, pa.large_string()), ours.labels)
    for row, text in enumerate(texts):
        expected = library_scores(library, text)
        if not expected:
            assert prediction.top[row] == -1 and np.isnan(prediction.top_probability[row])
            continue
        scores = [expected.get(label, 0.0) for label in ours.labels]
        # A label near 1e-5 may be left out by one side.
        assert prediction.scores[row] == pytest.approx(scores, abs=tolerance + 1e-5), text[:80]
        best = prediction.top[row]
        assert max(scores) - scores[best] <= tolerance
        assert prediction.top_probability[row] == prediction.scores[row, best]


@pytest.mark.parametrize("name", [*TRAINING, *QUANTISED])
def test_equal_to_the_library(name, trained, records):
    texts = [record["text"][:20_000] for record in records[1::9]]
    assert_equal_scores(trained(name), texts + ODD_TEXTS)


@pytest.mark.parametrize("name", ["hierarchical", "few_labels_trigrams", "pruned"])
def test_equal_to_the_library_on_any_text(name, trained):
    path = trained(name)
    library, ours = fasttext.load_model(str(path)), FastTextModel.load(path)

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.text(st.characters(codec="utf-8"))
        | st.lists(
            st.sampled_from(["the", "de", "la", "和", "</s>", "__label__en", "\n", "é"])
        ).map(" ".join)
    )
    def check(text: str) -> None:
        prediction = ours.predict_text(pa.array([text], pa.large_string()), ours.labels)
        expected = library_scores(library, text)
        scores = [expected.get(label, 0.0) for label in ours.labels]
        assert prediction.scores[0] == pytest.approx(scores, abs=2e-5, nan_ok=not expected)

    check()


def test_hashes_are_those_of_the_specification():
    # FNV-1a over signed bytes; the values were computed by fastText itself.
    for word, expected in VECTORS["hash32"].items():
        data = np.frombuffer(word.encode(), np.uint8)
        assert fnv(data, 0, len(data)) == expected


def model_of_buckets(bucket: int, ngram: int) -> FastTextModel:
    """A model without words whose row k is k, so that sums say which n-grams a text has."""
    rows = np.arange(bucket, dtype=np.float32)[:, None]
    entry, names = np.zeros(1, np.int64), np.zeros(0, np.uint8)
    table = collapse(names, entry, rows, 0, (bucket, ngram, 2, SOFTMAX))
    return FastTextModel(Path("buckets.bin"), ("a", "b"), table)


def test_pairs_of_words_go_to_the_buckets_of_the_specification():
    vector = VECTORS["bigram_buckets"]
    *words, end = vector["tokens"]
    assert end == "</s>"
    model = model_of_buckets(vector["bucket"], 2)
    for count in range(1, len(words) + 1):
        text = pa.array([" ".join(words[:count])], pa.large_string())
        inner = vector["ids"][: count - 1]
        without = model.predict_text(text, ["a"], end_of_line=False).log_odds[0, 0]
        assert np.isnan(without) if not inner else without == pytest.approx(np.mean(inner))
    said = model.predict_text(pa.array([" ".join(words)], pa.large_string()), ["a"])
    assert said.log_odds[0, 0] == pytest.approx(np.mean(vector["ids"]))


def bucket(words: list[str], buckets: int) -> int:
    """The bucket of an n-gram as the specification says it, in plain integers."""
    total = 0
    for word in words:
        hashed = 2166136261
        for byte in word.encode():
            signed = byte - 256 if byte >= 128 else byte
            hashed = ((hashed ^ (signed & 0xFFFFFFFF)) * 16777619) & 0xFFFFFFFF
        number = hashed - 2**32 if hashed >= 2**31 else hashed
        total = (total * 116049371 + number) % 2**64
    return total % buckets


@pytest.mark.parametrize("longest", [2, 3, 5])
def test_ngrams_of_long_texts_go_to_their_buckets(longest):
    # Longer than the blocks in which a text is read.
    words = [f"w{n * n % 97}é" for n in range(3 * BLOCK + 5)]
    line = [*words, "</s>"]
    ids = [
        bucket(line[first : first + size], 5000)
        for size in range(2, longest + 1)
        for first in range(len(line) - size + 1)
    ]
    model = model_of_buckets(5000, longest)
    said = model.predict_text(pa.array(["\n".join(words)], pa.large_string()), ["a"])
    assert said.words[0] == len(words)
    assert said.log_odds[0, 0] == pytest.approx(np.mean(ids), rel=1e-12)


def test_every_word_of_a_model_is_found():
    # As full as a table gets, so that buckets overflow; words around the sizes read at once.
    dice = np.random.default_rng(1)
    letters = np.array(list("abcdefgh\x01\x1fé日"))
    sizes = dice.permutation(np.arange(4096) % 40 + 1)
    words = list(dict.fromkeys("".join(dice.choice(letters, size)) for size in sizes))[:2048]
    encoded = [word.encode() for word in words]
    entry = np.cumsum([0, *map(len, encoded)])
    names = np.frombuffer(b"".join(encoded), np.uint8)
    rows = np.arange(2 * len(words), dtype=np.float32).reshape(-1, 2)
    table = collapse(names, entry, rows, len(words), (0, 1, 3, SOFTMAX))
    assert table.table.size == 2 * len(words)
    model = FastTextModel(Path("words.bin"), ("a", "b", "c"), table)
    said = model.predict_text(pa.array(words, pa.large_string()), ["a"], end_of_line=False)
    values = np.column_stack([rows, np.zeros(len(words))]).astype(np.float64)
    assert said.log_odds[:, 0] == pytest.approx(values[:, 0] - np.logaddexp(*values[:, 1:].T))
    unknown = pa.array([f"{word}i" for word in words], pa.large_string())
    assert np.isnan(model.predict_text(unknown, ["a"], end_of_line=False).log_odds).all()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("letter", ["a", "é", "\x01"])
def test_hashes_of_words_of_any_size(size, letter):
    first, second = (letter * size).encode()[:size].decode("utf-8", "ignore") or "a", "z" * size
    model = model_of_buckets(5000, 2)
    text = pa.array([f"{first} {second}", "x" * 100], pa.large_string())
    said = model.predict_text(text, ["a"], end_of_line=False)
    assert said.words.tolist() == [2, 1]
    assert said.log_odds[0, 0] == bucket([first, second], 5000)


def test_words_are_split_as_in_the_library():
    texts = ["a b\tc\nd\x0be\x0cf\rg\x00h", "", "  x\u00a0y  ", "dropped"]
    documents = Documents(
        pa.RecordBatch.from_pydict({TEXT: pa.array(texts, pa.large_string())}),
        np.array([True, True, True, False]),
    )
    data, _ = documents.utf8()
    first, start, end = fasttext_tokens(documents)
    words = [data[low:high].tobytes().decode() for low, high in zip(start, end, strict=True)]
    assert words == [*"abcdefgh", "x\u00a0y"]
    assert first.tolist() == [0, 8, 8, 9, 9]


@pytest.mark.parametrize("name", ["few_labels", "words"])
def test_log_odds_are_those_of_the_label_against_all_others(name, trained):
    model = FastTextModel.load(trained(name))
    texts = pa.array(["the end of the world", "la fin"], pa.large_string())
    prediction = model.predict_text(texts, model.labels)
    probability = prediction.scores - 1e-5
    odds = np.log(probability / (1.0 - probability))
    assert prediction.log_odds == pytest.approx(odds, rel=1e-4)


def test_log_odds_keep_the_order_where_probabilities_are_the_same(trained, tmp_path):
    # The few labels once more, with an output matrix a thousand times as large.
    whole = bytearray(trained("few_labels").read_bytes())
    output = np.frombuffer(whole, np.float32, 2 * 16, len(whole) - 4 * 2 * 16)
    whole[-4 * 2 * 16 :] = (output * 1000).tobytes()
    (tmp_path / "sure.bin").write_bytes(whole)
    model, plain = (
        FastTextModel.load(tmp_path / "sure.bin"),
        FastTextModel.load(trained("few_labels")),
    )
    texts = pa.array([f"the end of the {'and of the ' * n} world" for n in range(5)])
    sure, usual = (one.predict_text(texts, ["true"]) for one in (model, plain))
    assert len(np.unique(sure.scores)) == 1 and len(np.unique(usual.scores)) == 5
    assert sure.log_odds == pytest.approx(1000 * usual.log_odds)


def test_the_end_of_the_line_can_be_left_out(trained):
    model = FastTextModel.load(trained("bigrams"))
    once, twice = "the end of the world", "the end of the world the end of the world"
    text = pa.array([once, once + " </s> more", twice, ""], pa.large_string())
    with_end = model.predict_text(text, model.labels).scores
    without = model.predict_text(text, model.labels, end_of_line=False).scores
    assert np.abs(with_end - without)[:3].max(axis=1).min() > 1e-6
    assert (without[0] == without[1]).all() and (with_end[0] == with_end[1]).all()
    assert np.isnan(without[3]).all() and not np.isnan(with_end[3]).any()


def test_a_small_memory_changes_nothing(trained, records, monkeypatch):
    path = trained("hierarchical")
    texts = pa.array([record["text"] for record in records[::10]], pa.large_string())
    expected = FastTextModel.load(path).predict_text(texts, ["en", "zh"])
    monkeypatch.setattr(model_file, "_MEMORY_BYTES", 1000)
    model = FastTextModel.load(path)
    for _ in range(2):
        found = model.predict_text(texts, ["en", "zh"])
        assert (found.top == expected.top).all()
        assert (found.scores == expected.scores).all()


def test_threads_share_a_model(trained, records):
    model = FastTextModel.load(trained("subwords"))
    texts = pa.array([record["text"] for record in records], pa.large_string())
    expected = model.predict_text(texts, ["en", "fr"]).scores
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = model.predict_text(texts, ["en", "fr"]).scores

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[number] == expected).all() for number in range(4))


def test_a_model_is_loaded_once(trained):
    path = trained("words")
    assert load_model(path) is load_model(path)


@pytest.fixture
def cached(trained, tmp_path, monkeypatch) -> Path:
    """A model that is large enough to have its table kept; the cache is beside it."""
    monkeypatch.setattr(collapsed, "_CACHED_FROM", 1000)
    monkeypatch.setenv("TAMIS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copy(trained("some_labels"), tmp_path / "model.bin"))


def tables_kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "fasttext").iterdir())


def is_mapped(array: object) -> bool:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


def test_the_table_of_a_large_model_is_kept_and_mapped(cached, tmp_path, records):
    texts = pa.array([record["text"] for record in records[::20]], pa.large_string())
    first = FastTextModel.load(cached)
    (folder,) = tables_kept(tmp_path)
    again = FastTextModel.load(cached)
    assert tables_kept(tmp_path) == [folder]
    for model in (first, again):
        assert is_mapped(model._tables.table) and is_mapped(model._tables.rows)
        assert model.labels == first.labels
    expected = first.predict_text(texts, first.labels)
    found = again.predict_text(texts, first.labels)
    assert (found.scores == expected.scores).all() and (found.top == expected.top).all()


def test_a_table_is_that_of_its_model(cached, trained, tmp_path):
    text = pa.array(["the end of the world"], pa.large_string())
    FastTextModel.load(cached)
    shutil.copy(trained("few_one_vs_all"), cached)
    assert set(FastTextModel.load(cached).labels) == {"true", "false"}
    # What is damaged is made again, and where nothing can be written it works without.
    expected = FastTextModel.load(cached).predict_text(text, ["true"]).scores
    for folder in tables_kept(tmp_path):
        (folder / "facts.json").write_text("{}")
    repaired = FastTextModel.load(cached)
    assert repaired.predict_text(text, ["true"]).scores == expected
    assert is_mapped(repaired._tables.table)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder")
    assert FastTextModel.load(cached).predict_text(text, ["true"]).scores == expected


def test_few_tables_are_kept(cached, tmp_path, monkeypatch):
    monkeypatch.setattr(collapsed, "_MOST_CACHED", 2)
    for number in range(4):
        os.utime(cached, (0, number))
        FastTextModel.load(cached)
    assert len(tables_kept(tmp_path)) == 2


def test_labels_by_name(trained):
    model = FastTextModel.load(trained("words"))
    assert model.labels[model.index("zh")] == "zh" == model.labels[model.index("__label__zh")]
    with pytest.raises(TamisError, match=r"has no label zg.*zh"):
        model.index("zg")


def test_a_tree_has_no_log_odds(trained):
    model = FastTextModel.load(trained("hierarchical"))
    assert np.isnan(model.predict_text(pa.array(["a"], pa.large_string()), ["en"]).log_odds).all()


def test_a_truncated_file_is_one_sentence(trained, tmp_path):
    for name in ("hierarchical", "pruned", "bigrams", "few_labels"):
        whole = trained(name).read_bytes()
        for size in (1, 7, 30, 92, 100, 500, len(whole) // 2, len(whole) - 1):
            path = tmp_path / "short.bin"
            path.write_bytes(whole[:size])
            with pytest.raises(TamisError, match=r"short\.bin is damaged"):
                FastTextModel.load(path)


@pytest.mark.parametrize("place", range(4, 93, 4))
def test_no_number_of_the_header_brings_it_down(place, trained, tmp_path):
    whole = bytearray(trained("hierarchical").read_bytes())
    for value in (-1, 0, 2**31 - 1):
        changed = whole.copy()
        struct.pack_into("<i", changed, place, value)
        path = tmp_path / "odd.bin"
        path.write_bytes(changed)
        try:
            model = FastTextModel.load(path)
        except TamisError:
            continue
        model.predict_text(pa.array(["one two"], pa.large_string()))


def test_files_that_are_no_classifiers(trained, tmp_path):
    with pytest.raises(TamisError, match="cannot be read"):
        FastTextModel.load(tmp_path / "missing.bin")
    (tmp_path / "empty.bin").touch()
    with pytest.raises(TamisError, match="cannot be read"):
        FastTextModel.load(tmp_path / "empty.bin")
    (tmp_path / "text.bin").write_text("no model at all " * 100)
    with pytest.raises(TamisError, match="is not a fastText model"):
        FastTextModel.load(tmp_path / "text.bin")
    vectors = bytearray(trained("words").read_bytes())
    struct.pack_into("<i", vectors, 8 + 4 * 7, 2)
    (tmp_path / "vectors.bin").write_bytes(vectors)
    with pytest.raises(TamisError, match="word vectors"):
        FastTextModel.load(tmp_path / "vectors.bin")
