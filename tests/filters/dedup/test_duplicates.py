"""The protocol of the deduplication stages: summaries, keep rule, artefact, measures, mistakes."""

from __future__ import annotations

import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tamis.filters.dedup import ExactDedup, MinHash, deduplicate
from tamis.filters.dedup.summary_columns import take
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Summaries
from tests.filters.dedup.conftest import make_documents

TEXTS = [
    "the same text as some others of this corpus",
    "a document that nothing else resembles at all",
    "the same text, as some others of this corpus",
    "The same text as some others of this corpus...",
    "one more pair of documents is in this corpus",
    "one more pair of documents is in this corpus",
]


def fit_in_files(stage, batches, folder, order=None):
    """The stage fitted as the pipeline does it: one file of summaries a task, in any order."""
    summaries, artefact = folder / "summaries", folder / "artefact"
    summaries.mkdir(parents=True)
    artefact.mkdir()
    paths = []
    for number, documents in enumerate(batches):
        summary = stage.summarize(documents)
        paths.append(summaries / f"{number}.arrow")
        with (
            pa.OSFile(str(paths[-1]), "wb") as sink,
            pa.ipc.new_file(sink, summary.schema) as writer,
        ):
            writer.write_batch(summary)
    facts = stage.fit(Summaries([paths[i] for i in order or range(len(paths))]), artefact)
    return stage.load(artefact), facts, (artefact / "duplicates.arrow").read_bytes()


def cut(texts, sizes):
    begin = 0
    for size in sizes:
        ids = [f"doc-{i}" for i in range(begin, begin + size)]
        yield make_documents(texts[begin : begin + size], ids, first_row=begin)
        begin += size


def test_measures_verdicts_and_detail(tmp_path):
    stage, facts, _ = fit_in_files(MinHash(), cut(TEXTS, [3, 3]), tmp_path)
    assert facts == {"documents": 6, "clusters": 2, "duplicates": 3, "largest_cluster": 3}
    measures = stage.measure(make_documents(TEXTS))
    assert measures["duplicate"].tolist() == [0, 0, 1, 2, 0, 1]
    assert np.array_equal(measures["cluster"], [0, np.nan, 0, 0, 1, 1], equal_nan=True)
    assert measures["cluster_size"].tolist() == [3, 1, 3, 3, 2, 2]
    assert measures["detail"].tolist() == [None, None, "doc-0", "doc-0", None, "doc-4"]
    verdicts = stage.decide(measures)
    assert verdicts.keep.tolist() == [True, True, False, False, True, False]
    assert verdicts.rules[0].field == "max_duplicates" and verdicts.value[3] == 2
    assert {quantity.name for quantity in stage.provides()} == set(measures) - {"detail"}


def test_some_or_all_duplicates_may_stay():
    table = pa.table({"text": TEXTS, "n": range(6)})
    assert deduplicate(table, MinHash(max_duplicates=1))["n"].to_pylist() == [0, 1, 2, 4, 5]
    assert deduplicate(table, MinHash(max_duplicates=None)).equals(table)


def test_the_longest_is_kept_when_asked(tmp_path):
    stage, _, _ = fit_in_files(MinHash(keep="longest"), cut(TEXTS, [6]), tmp_path)
    measures = stage.measure(make_documents(TEXTS))
    assert measures["duplicate"].tolist() == [2, 0, 1, 0, 0, 1]
    assert measures["detail"].tolist() == ["doc-3", None, "doc-3", None, None, "doc-4"]


def test_of_the_longest_the_smallest_content_hash_is_kept_wherever_it_stands():
    texts = [
        "Some words to compare here",
        "some Words to compare here",
        "some words To compare here",
    ]
    kept = set()
    for shift in range(3):
        table = pa.table({"text": texts[shift:] + texts[:shift]})
        kept.update(deduplicate(table, MinHash(keep="longest"))["text"].to_pylist())
    assert len(kept) == 1


@pytest.mark.parametrize("keep", ["first", "longest"])
@pytest.mark.parametrize("kind", [MinHash, ExactDedup])
def test_the_artefact_is_the_same_for_any_cut_and_order_of_tasks(kind, keep, copies, tmp_path):
    stage, texts = kind(keep=keep), copies[:1200] + copies[:150]
    sizes = [[1350], [1, 700, 0, 649], [400] * 3 + [150]]
    results = []
    for attempt, parts in enumerate(sizes):
        order = list(range(len(parts)))
        random.Random(attempt).shuffle(order)
        _, facts, artefact = fit_in_files(stage, cut(texts, parts), tmp_path / str(attempt), order)
        results.append((facts, artefact))
    assert facts["duplicates"] >= 150
    assert results[0] == results[1] == results[2]


def test_documents_that_were_dropped_before_take_no_part():
    alive = np.array([False, True, True, True, True, True])
    documents = make_documents(TEXTS, alive=alive)
    for stage in (MinHash(), MinHash(keep="longest"), ExactDedup(), ExactDedup(normalize=True)):
        summary = stage.summarize(documents)
        compact = stage.summarize(make_documents(TEXTS[1:], [f"doc-{i}" for i in range(1, 6)], 1))
        assert summary.equals(compact)


def test_rows_need_not_be_in_order_or_dense():
    texts = [TEXTS[4], TEXTS[1], TEXTS[5]]
    documents = make_documents(texts)
    rows = pa.array([7 << 32, 3, 2 << 32], pa.uint64())
    batch = documents.batch.set_column(2, "__row__", rows)
    table = pa.Table.from_batches([batch])
    stage = MinHash()
    batch_summary = stage.summarize(Documents(batch))
    fitted = stage.fit_table(table)
    assert fitted.measure(documents)["detail"].tolist() == [None, None, "doc-0"]
    assert batch_summary["__row__"].equals(rows)


def test_a_slice_of_a_batch_is_summarized_like_the_rows_alone(copies):
    whole = make_documents(copies[:50])
    part = Documents(whole.batch.slice(20, 7))
    alone = make_documents(copies[20:27], [f"doc-{i}" for i in range(20, 27)], first_row=20)
    for stage in (MinHash(keep="longest"), ExactDedup(keep="longest"), ExactDedup(normalize=True)):
        assert stage.summarize(part).equals(stage.summarize(alone))


@pytest.mark.parametrize("stage", [MinHash(), MinHash(keep="longest"), ExactDedup()])
def test_no_documents_and_no_duplicates(stage, tmp_path):
    nothing = {"documents": 0, "clusters": 0, "duplicates": 0, "largest_cluster": 0}
    fitted, facts, _ = fit_in_files(stage, [], tmp_path / "none")
    assert facts == nothing
    fitted, facts, _ = fit_in_files(stage, [make_documents([])], tmp_path / "empty")
    assert facts == nothing
    assert fitted.measure(make_documents([]))["duplicate"].tolist() == []
    fitted, facts, _ = fit_in_files(stage, [make_documents(TEXTS[:2])], tmp_path / "alone")
    assert facts == {"documents": 2, "clusters": 0, "duplicates": 0, "largest_cluster": 1}
    assert fitted.measure(make_documents(TEXTS[:2]))["detail"].tolist() == [None, None]
    assert deduplicate(pa.table({"text": pa.array([], pa.string())}), stage).num_rows == 0


def test_threads_give_what_one_thread_gives(copies):
    stage = MinHash()
    batches = [make_documents(copies[i : i + 100]) for i in range(0, 1600, 100)]
    expected = [stage.summarize(documents) for documents in batches]
    again = [make_documents(copies[i : i + 100]) for i in range(0, 1600, 100)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stage.summarize, again)) == expected


def test_tables_may_lack_ids_and_have_any_kind_of_string():
    for kind in (pa.string(), pa.large_string()):
        table = pa.table({"text": pa.array(TEXTS, kind)})
        assert deduplicate(table, MinHash()).num_rows == 3
    fitted = MinHash().fit_table(table)
    assert fitted.measure(make_documents(TEXTS))["detail"].tolist()[2] == "0"


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(TamisError, match=r"^Stage minhash has to see all documents first"):
        MinHash().measure(make_documents(TEXTS))
    with pytest.raises(TamisError, match=r"duplicates\.arrow cannot be read"):
        MinHash().load(tmp_path)
    (tmp_path / "duplicates.arrow").write_bytes(b"damaged")
    with pytest.raises(TamisError, match=r"duplicates\.arrow cannot be read"):
        ExactDedup().load(tmp_path)
    with pytest.raises(TamisError, match="no column 'text'; its columns are content"):
        deduplicate(pa.table({"content": TEXTS}), MinHash())
    with pytest.raises(TamisError, match="holds int64, not strings"):
        deduplicate(pa.table({"text": [1, 2]}), MinHash())
    with pytest.raises(TamisError, match="Stage minhash needs the column __row__"):
        MinHash().summarize(Documents(make_documents(TEXTS).batch.drop_columns(["__row__"])))
    with pytest.raises(ValidationError, match="bands"):
        MinHash(bands=0)
    with pytest.raises(ValidationError):
        MinHash(keep="shortest")


def test_a_fitted_stage_can_be_compared_and_sent_to_another_process():
    stage = MinHash()
    fitted = stage.fit_table(pa.table({"text": TEXTS}))
    assert fitted != stage and hash(fitted) == hash(stage)
    documents = make_documents(TEXTS)
    sent = pickle.loads(pickle.dumps(fitted)).measure(documents)
    assert sent["duplicate"].tolist() == fitted.measure(documents)["duplicate"].tolist()


def test_strings_are_taken_across_chunks_in_the_order_asked():
    column = pa.chunked_array([["a", "b"], [], ["c"], ["d", "e"]], pa.string())
    rows = np.array([4, 0, 2, 4, 1])
    found = take(column.chunks, rows, pa.large_string()).to_pylist()
    assert found == ["e", "a", "c", "e", "b"]
    assert take(column.chunks, np.array([], np.int64), pa.large_string()).to_pylist() == []
