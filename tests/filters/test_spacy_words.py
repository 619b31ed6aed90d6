from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.filters.text import spacy_words
from tamis.filters.text.chunk_table import FRAGILE, empty_table, merged
from tamis.filters.text.spacy_words import ChunkMemo, chunk_codes, chunk_memo, reference_words
from tamis.filters.text.words import words
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError

spacy = pytest.importorskip("spacy")
ENGLISH = spacy.blank("en")
CASES = [case for case in ENGLISH.tokenizer.rules if not any(map(str.isspace, case))]


@pytest.fixture(autouse=True)
def own_memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TAMIS_CACHE", str(tmp_path))
    forget()
    yield
    forget()


def forget() -> None:
    """The memo of this process, as in a new one."""
    spacy_words._chunk_memo.cache_clear()


def batch_of(texts: list[str]) -> Documents:
    ids = pa.array([str(i) for i in range(len(texts))])
    return Documents(
        pa.RecordBatch.from_arrays([ids, pa.array(texts, pa.large_string())], ["id", "text"])
    )


def spacy_words_of(texts: list[str]) -> list[list[str]]:
    documents = batch_of(texts)
    found = words(documents, "spacy")
    data, _ = documents.utf8()
    pieces = [
        data[start:end].tobytes().decode()
        for start, end in zip(found.start, found.end, strict=True)
    ]
    return [pieces[found.first[i] : found.first[i + 1]] for i in range(len(texts))]


def expected(text: str) -> list[str]:
    """What datatrove does with the whole pipeline: strip the tokens, leave out empty ones."""
    return [token.text.strip() for token in ENGLISH(text) if token.text.strip()]


def test_known_words() -> None:
    texts = ["Don't stop (e.g. here), it's 10a.m.!", "", "  ", "U.S. well-known\u00a0http://a.bc/d"]
    assert spacy_words_of(texts) == [
        ["Do", "n't", "stop", "(", "e.g.", "here", ")", ",", "it", "'s", "10", "a.m.", "!"],
        [],
        [],
        ["U.S.", "well", "-", "known", "http://a.bc/d"],
    ]
    assert reference_words(texts[0]) == spacy_words_of(texts)[0]


def test_every_special_case_with_marks_around_it_and_neighbours() -> None:
    texts = [
        pattern.format(case)
        for case in CASES
        for pattern in ("{}", "({}", "{}),", '"{}."', "x{} )", ": {}", "foo/{} .")
    ]
    assert spacy_words_of(texts) == [expected(text) for text in texts]


def test_a_special_case_across_a_space_hides_one_inside_a_chunk() -> None:
    # ":))" is longer than ":)"; across the space it changes nothing but takes the place.
    assert spacy_words_of(["foo:) bar", "foo:) )"]) == [
        ["foo", ":)", "bar"],
        ["foo", ":", ")", ")"],
    ]
    documents = batch_of(["foo:) )"])
    codes = chunk_codes(documents, words(documents)).codes
    assert codes[0] & FRAGILE == 0  # known by itself now, as its neighbour wants it


def test_glued_special_cases_at_random() -> None:
    rng = random.Random(7)
    marks = [*"().,:;!?'\"-_/=<>8oOxXDPp[]{}|*^1a", "foo", "word", "\u2019", "...", "\u00e9"]
    emoticons = [case for case in CASES if not case[0].isalpha()]
    texts = [
        "".join(
            rng.choice(rng.choice([CASES, emoticons, marks]))
            + rng.choice(["", "", "", " ", " ", "  ", "\n", "\t", "\u00a0"])
            for _ in range(rng.randint(1, 14))
        )
        for _ in range(4000)
    ]
    assert spacy_words_of(texts) == [expected(text) for text in texts]


def test_plain_words_are_split_as_spacy_splits_them() -> None:
    cores = [
        "word",
        "Word",
        "WORD",
        "X",
        "is",
        "can",
        "cannot",
        "May",
        "2024",
        "8",
        "10",
        "12am",
        "a",
    ]
    cores += [
        "well-known",
        "up-to-date",
        "A-b",
        "X-Y",
        "T-",
        "co-op",
        "it",
        "its",
        "Mr",
        "Inc",
        "D",
    ]
    fronts = ["", "(", '"', "((", "'"]
    marks = ["", *',;:!?)".', "'s", "'S", "...", *(a + b for a in ',;:!?)".' for b in ',;:!?)".')]
    texts = [front + core + mark for front in fronts for core in cores for mark in marks]
    assert spacy_words_of(texts) == [expected(text) for text in texts]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(" .,'-():\n8a")))))
def test_any_text(texts: list[str]) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    assert spacy_words_of(texts) == [expected(text) for text in texts]


def test_long_chunks() -> None:
    texts = [
        "a" * 5000,
        "ab/cd," * 400,
        "x" * 70 + "-" + "y" * 70,
        "(" * 20 + "z" * 17 + ")" * 20,
        "e\u0301" * 600,
    ]
    together = spacy_words_of([" ".join(texts), *texts])
    assert together[1:] == [expected(text) for text in texts]
    assert together[0] == [word for document in together[1:] for word in document]


def test_dropped_documents_have_no_words() -> None:
    documents = batch_of(["one two", "three, four"])
    documents.alive[0] = False
    assert np.diff(words(documents, "spacy").first).tolist() == [0, 3]


def test_words_do_not_depend_on_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Don't (stop), v1.2/x:) )", "(stop), now... don't", "stop-gap 'em-dash\u2014here"] * 3
    cold = spacy_words_of(texts)
    assert spacy_words_of(texts) == cold
    monkeypatch.setattr(spacy_words, "MEMO_CHUNKS", 0)
    forget()
    assert spacy_words_of(texts[::-1]) == cold[::-1]
    assert len(chunk_memo()) == 0


def test_tables_grow_and_agree_between_threads() -> None:
    texts = [f"chunk{i // 3}.x{i % 7}/y n\u00ba{i}, (z{i})" for i in range(8000)]
    results: list[list[list[str]]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        for begin in range(0, len(texts), 500):
            results[number] += spacy_words_of(texts[begin : begin + 500])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[1:] == results[:1] * 3
    assert results[0][::101] == [expected(text) for text in texts[::101]]
    assert chunk_memo().tables[0].used > 0
    assert merged(*chunk_memo().tables).used == len({c for text in texts for c in text.split()})


def test_what_was_learned_is_there_in_the_next_run(tmp_path: Path) -> None:
    texts = ["Don't (stop), v1.2/x:)", "a-very-long/chunk.that:is(not)inline,at;all", "plain words"]
    before = spacy_words_of(texts)
    memo = chunk_memo()
    memo.save()
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    forget()
    assert len(chunk_memo()) == len(memo) > 0
    assert spacy_words_of(texts) == before
    assert len(chunk_memo()) == len(memo)


def test_a_damaged_file_is_ignored_with_a_warning(tmp_path: Path) -> None:
    spacy_words_of(["Don't stop"])
    path = chunk_memo().path
    assert path is not None
    chunk_memo().save()
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    for damaged in (bytes(whole), bytes(whole[:100]), b"", b"no archive"):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged"):
            assert len(ChunkMemo(path)) == 0


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    memo = ChunkMemo(tmp_path / "file" / "memo.npz")
    memo.tables = (chunk_memo().tables[0], empty_table()._replace(used=1))
    with pytest.warns(UserWarning, match="not saved"):
        memo.save()


def test_without_spacy_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['spacy'] = None\n"
        "from tamis.filters.text.spacy_words import reference_words\n"
        "reference_words('a')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
    )
    assert f"{TamisError.__name__}: " in ended.stderr
    assert "tamis[spacy]" in ended.stderr
