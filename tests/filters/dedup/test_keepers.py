"""The document that is kept, by every rule, wherever it stands."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timedelta, timezone

import pyarrow as pa
import pytest
import xxhash

from tamis.filters.dedup import ExactDedup, MinHash, deduplicate
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import parse_recipe
from tests.filters.dedup.conftest import make_documents
from tests.filters.dedup.test_duplicates import fit_in_files

# The same words, so one cluster.
TEXTS = [
    "Words to compare here",
    "words to compare here!!",
    "words, to compare here",
    "WORDS to compare here",
]


def kept(stage, **columns):
    """The number of the row that is kept, which is the same for every order of the rows."""
    table = pa.table({"text": TEXTS, "n": range(4), **columns})
    found = {
        tuple(deduplicate(table.take(pa.array(order)), stage)["n"].to_pylist())
        for order in itertools.permutations(range(4))
    }
    assert len(found) == 1
    ((only,),) = found
    return only


def smallest_hash(rows=range(4)):
    return min(rows, key=lambda row: xxhash.xxh3_64_intdigest(TEXTS[row].encode()))


def test_hash_and_longest():
    assert kept(MinHash(keep="hash")) == smallest_hash()
    assert kept(MinHash(keep="longest")) == 1


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.9, 0.3, None], 1),
        ([float("nan"), None, -5.0, None], 2),
        ([1, 2, 4, 3], 2),
        ([True, False, False, None], 0),
        ([None] * 4, smallest_hash()),
        ([0.5, 0.2, 0.5, 0.5], smallest_hash([0, 2, 3])),
    ],
)
def test_the_best_by_a_column(scores, expected):
    assert kept(MinHash(keep={"best": "quality"}), quality=scores) == expected


UTC3 = timezone(timedelta(hours=3))
DATES = [
    ["2024-05-01", "2023", "2023-06", "2024-05-01T10:00:00Z"],
    ["2024-05-01T02:00:00Z", "2024-05-01T04:00:00+03:00", "nothing", None],
    [None, "1969-12-31T23:59:59.999999", "1970-01-01", "19700101T000000Z"],
    [date(2020, 1, 2), date(2020, 1, 1), None, date(2021, 1, 1)],
    [datetime(2020, 1, 2), datetime(1900, 1, 1), None, datetime(2021, 1, 1)],
    [5, 3, None, 4],
    [5.5, -2.0, None, float("nan")],
]


@pytest.mark.parametrize("dates", DATES)
def test_the_oldest_by_its_date(dates):
    assert kept(MinHash(keep="oldest"), date=dates) == 1
    assert kept(MinHash(keep={"oldest": "seen"}), seen=dates) == 1


def test_dates_with_zones_and_dictionaries():
    moments = [datetime(2020, 1, 1, 2, tzinfo=UTC3), datetime(2019, 12, 31, 22, tzinfo=UTC3)] * 2
    times = pa.array([*moments[:3], None], pa.timestamp("ms", "Europe/Paris"))
    assert kept(MinHash(keep="oldest"), date=times) == 1
    words = pa.array(["2021", "2020", "2021", None]).dictionary_encode()
    assert kept(MinHash(keep="oldest"), date=words) == 1


def test_copies_of_one_text_are_kept_by_their_place():
    table = pa.table({"text": ["same"] * 3, "n": range(3), "date": ["2020"] * 3})
    for keep in ("first", "longest", "hash", "oldest"):
        assert deduplicate(table, ExactDedup(keep=keep))["n"].to_pylist() == [0]


def test_the_order_of_duplicates_is_that_of_the_rule(tmp_path):
    documents = make_documents(TEXTS)
    batch = documents.batch.append_column("quality", pa.array([3.0, 9.0, None, 5.0]))
    documents.batch = batch
    stage, _, _ = fit_in_files(MinHash(keep={"best": "quality"}), [documents], tmp_path)
    assert stage.measure(documents)["duplicate"].tolist() == [2, 0, 3, 1]


def test_mistakes_are_one_sentence():
    with pytest.raises(RecipeError, match=r"minhash\.keep = best needs a column"):
        MinHash(keep="best")
    with pytest.raises(RecipeError, match=r"by = quality is for keep: best and keep: oldest"):
        MinHash(by="quality")
    with pytest.raises(TamisError, match="best needs a column of numbers, and text holds"):
        deduplicate(pa.table({"text": TEXTS}), MinHash(keep={"best": "text"}))
    with pytest.raises(TamisError, match="oldest needs a column of dates, and date holds"):
        deduplicate(pa.table({"text": TEXTS, "date": [[1]] * 4}), MinHash(keep="oldest"))
    with pytest.raises(TamisError, match="keep: oldest needs the column date"):
        deduplicate(pa.table({"text": TEXTS}), MinHash(keep="oldest"))


def test_the_recipe_says_the_column_in_one_line():
    text = "stages:\n  - minhash: {keep: {best: quality}}\n"
    recipe, _ = parse_recipe(f"input: {{path: x.jsonl}}\n{text}output: {{path: out}}\n", "recipe")
    stage = recipe.stages[0]
    assert (stage.keep, stage.by, stage.requires()) == ("best", "quality", ("quality",))
    assert MinHash(**stage.model_dump()) == stage
