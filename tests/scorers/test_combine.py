"""Scores put together: ranks by hand, ties, directions, and no dependence on the sharding."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.filters.dedup.summary_columns import TableSummaries
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import parse_recipe
from tamis.scorers.combine import Combine, combine

NAN = float("nan")


def ranks_of(values) -> np.ndarray:
    """Documents below, and half of the equal ones, among all."""
    values = np.asarray(values, float)
    below, equal = values[:, None] > values, values[:, None] == values
    return (below + equal / 2).mean(axis=1)


def table_of(**columns) -> pa.Table:
    length = len(next(iter(columns.values())))
    return pa.table({"text": ["x"] * length, **columns})


def score(table: pa.Table, **settings) -> list[float]:
    return combine(table, Combine(**settings))["combine.score"].to_pylist()


TABLE = table_of(a=[1.0, 2.0, 2.0, 9.0], b=[0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("min", [0.125, 0.5, 0.375, 0.125]),
        ("mean", [0.5, 0.5625, 0.4375, 0.5]),
        ("max", [0.875, 0.625, 0.5, 0.875]),
    ],
)
def test_ranks_by_hand(by, expected):
    assert score(TABLE, columns=["a", "b"], by=by) == pytest.approx(expected)


def test_lower_can_be_better():
    settings = {"columns": {"a": None, "b": {"better": "lower"}}}
    assert score(TABLE, **settings, by="mean") == pytest.approx([0.125, 0.4375, 0.5625, 0.875])
    assert score(TABLE, **settings, by="max", of="values") == pytest.approx([1, 2, 2, 9])


def test_weights_and_values_and_z_scores():
    settings = {"columns": {"a": {"weight": 3}, "b": {}}}
    assert score(TABLE, **settings, of="values") == pytest.approx([0.85, 1.575, 1.55, 6.775])
    a, b = (np.array(TABLE[name]) for name in "ab")
    z = [(values - values.mean()) / values.std() for values in (a, b)]
    assert score(TABLE, **settings, of="z_scores") == pytest.approx((3 * z[0] + z[1]) / 4)
    same = table_of(a=[5.0, 5.0])
    assert score(same, columns=["a"], of="z_scores") == [0, 0]


def test_a_missing_score_leaves_none_or_the_others():
    table = table_of(a=[1.0, NAN, 3.0, None], b=[1.0, 2.0, NAN, None])
    assert score(table, columns=["a", "b"]) == pytest.approx([0.25, NAN, NAN, NAN], nan_ok=True)
    others = score(table, columns=["a", "b"], incomplete="others", by="min")
    assert others == pytest.approx([0.25, 0.75, 0.75, NAN], nan_ok=True)
    assert score(table, columns=["a", "b"], incomplete="others") == pytest.approx(
        [0.25, 0.75, 0.75, NAN], nan_ok=True
    )


numbers = st.lists(
    st.sampled_from([0.0, -0.0, 1.5, -2.0, 3e300, np.inf, -np.inf, NAN]) | st.floats(),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(numbers)
def test_ranks_are_those_of_the_definition(values):
    known = np.array([value for value in values if not np.isnan(value)])
    found = np.array(score(table_of(a=values), columns=["a"]))
    if len(known):
        assert found[~np.isnan(values)] == pytest.approx(ranks_of(known))
    assert np.isnan(found[np.isnan(values)]).all()


@settings(deadline=None, max_examples=30)
@given(numbers, st.integers(1, 5), st.randoms())
def test_what_is_fitted_does_not_depend_on_order_and_grouping(values, parts, random):
    stage = Combine(columns=["a"], of="ranks")
    whole = stage.fit_table(table_of(a=values))
    mixed = values[:]
    random.shuffle(mixed)
    batches = [
        pa.record_batch({"a": pa.array(mixed[part::parts], pa.float64())}) for part in range(parts)
    ]
    (scale,) = stage._fit(TableSummaries(batches))
    (expected,) = whole._scales
    assert scale.values.tolist() == expected.values.tolist()
    assert scale.below.tolist() == expected.below.tolist()
    assert scale.mean == pytest.approx(expected.mean, nan_ok=True, rel=0, abs=0)


def test_a_value_that_was_not_there_lies_between_its_neighbours():
    fitted = Combine(columns=["a"]).fit_table(table_of(a=[1.0, 2.0, 3.0, 4.0]))
    (scale,) = fitted._scales
    assert scale.ranks(np.array([0.0, 2.5, 9.0])).tolist() == [0.0, 0.5, 1.0]


def write(path, documents: int) -> None:
    generator = np.random.default_rng(3)
    rows = [
        {
            "id": str(row),
            "text": "word " * int(generator.integers(1, 300)),
            "edu": float(generator.integers(0, 5)),
            "flag": bool(row % 2),
        }
        for row in range(documents)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_in_a_run_whatever_the_workers(tmp_path):
    write(tmp_path / "in.jsonl", 300)
    text = f"""
        input: {{path: {tmp_path}/in.jsonl}}
        stages:
          - difficulty
          - combine:
              columns:
                edu: {{weight: 2}}
                difficulty.compression_ratio: {{better: lower}}
                flag: null
        output: {{path: {tmp_path}/out}}
    """
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    scores = []
    for workers in (0, 2):
        run = tamis.Pipeline.from_recipe(recipe, [], str(tmp_path / f"out-{workers}")).run(
            workers=workers
        )
        assert run.counts["kept"] == 300
        table = pq.read_table(tmp_path / f"out-{workers}" / "data")
        scores.append(table["combine.score"].to_pylist())
        assert table.column_names[-1] == "combine.score"
    assert scores[0] == scores[1]
    ratios = np.array(table["difficulty.compression_ratio"])
    ranks = [
        ranks_of(values)
        for values in (np.array(table["edu"]), -ratios, np.array(table["flag"]).astype(float))
    ]
    assert scores[0] == pytest.approx((2 * ranks[0] + ranks[1] + ranks[2]) / 4)


def test_a_stage_stands_for_its_score(tmp_path):
    table = table_of(**{"edu.score": [1.0, 2.0], "edu": [2.0, 1.0]})
    assert score(table, columns=["edu"]) == [0.25, 0.75]
    assert Combine(columns=["edu", "x"]).missing(["edu.score", "text"]) == ["x"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("columns: []", "columns"),
        ("columns: {a: {better: larger}}", "better"),
        ("columns: [a, a]", "stands there twice"),
        ("columns: {a: {weight: 0}}", "weight"),
        ("columns: {a: {weight: 2}}, by: min", "weights are for by: mean"),
        ("columns: [a], by: median", "by"),
    ],
)
def test_mistakes_are_one_sentence(settings, message):
    recipe = f"input: x.jsonl\nstages:\n  - combine: {{{settings}}}\noutput: {{path: out}}\n"
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe)


def test_columns_that_cannot_be_put_together_say_so(tmp_path):
    with pytest.raises(TamisError, match="needs the column b"):
        score(TABLE.drop(["b"]), columns=["a", "b"])
    with pytest.raises(TamisError, match="needs numbers in the column text"):
        score(TABLE, columns=["text"])
    with pytest.raises(TamisError, match="huge values; take of: ranks"):
        score(table_of(a=[1.0, np.inf]), columns=["a"], of="z_scores")
    with pytest.raises(TamisError, match="has to see all documents first"):
        Combine(columns=["a"]).measure(next(iter_documents()))
    with pytest.raises(TamisError, match="fit combine again"):
        Combine(columns=["a"]).load(tmp_path)


def iter_documents():
    from tamis.filters.dedup.duplicates import documents_of

    return documents_of(TABLE, ("a", "b"))
