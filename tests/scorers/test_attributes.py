"""Attributes: cuts and quantiles by hand, buckets and groups, and their sizes."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import parse_recipe
from tamis.scorers.attributes import Attributes, assign_buckets

NAN = float("nan")


def table_of(**columns) -> pa.Table:
    length = len(next(iter(columns.values())))
    return pa.table({"text": ["x"] * length, **columns})


def buckets(table: pa.Table, column: str = "bucket", **settings) -> list[str]:
    return assign_buckets(table, Attributes(**settings))[f"attributes.{column}"].to_pylist()


def test_cuts_by_hand():
    table = table_of(edu=[0.9, 1.0, 2.4, 2.5, NAN, None])
    quality = {"column": "edu", "cuts": [1.0, 2.5]}
    assert buckets(table, by={"quality": quality}) == [
        *("low", "medium", "medium", "high", "unknown", "unknown")
    ]
    named = {**quality, "names": ["bad", "fair", "good"]}
    assert buckets(table, "quality", by={"quality": named}, unknown="none")[2:5] == [
        *("fair", "good", "none")
    ]
    many = {"column": "edu", "cuts": [0.0, 1.0, 2.0]}
    assert buckets(table, by={"quality": many})[:3] == ["2", "3", "4"]


def test_quantiles_are_fractions_of_the_documents():
    table = table_of(edu=[float(k) for k in range(100, 0, -1)])
    found = buckets(table, by={"q": {"column": "edu", "quantiles": [0.29, 0.9]}})
    assert [found.count(name) for name in ("low", "medium", "high")] == [29, 61, 10]
    assert found[:10] == ["high"] * 10


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.0, NAN]) | st.floats(-9, 9), min_size=1),
    st.floats(0.01, 0.99),
)
def test_no_more_than_the_fraction_lies_below_a_quantile(values, fraction):
    found = buckets(table_of(a=values), by={"q": {"column": "a", "quantiles": [fraction]}})
    known = len(values) - found.count("unknown")
    assert found.count("unknown") == sum(np.isnan(values))
    assert found.count("low") <= fraction * known + 1e-5
    lows = [v for v, name in zip(values, found, strict=True) if name == "low"]
    highs = [v for v, name in zip(values, found, strict=True) if name == "high"]
    assert not lows or not highs or max(lows) < min(highs)


BY = {
    "quality": {"column": "edu", "cuts": [2.0]},
    "toxicity": {"column": "tox", "cuts": [0.5], "names": ["clean", "toxic"]},
    "topic": {"column": "topic"},
}
TABLE = table_of(
    edu=[1.0, 3.0, 3.0, NAN], tox=[0.9, 0.1, 0.9, 0.1], topic=["news", "law", None, ""]
)


def test_a_bucket_is_the_values_of_a_document():
    assert buckets(TABLE, by=BY) == [
        *("low-toxic-news", "high-clean-law", "high-toxic-unknown", "unknown-clean-unknown")
    ]
    assert buckets(TABLE, "topic", by=BY) == ["news", "law", "unknown", "unknown"]
    two = {name: BY[name] for name in ("quality", "toxicity")}
    assert buckets(TABLE, by=two, separator="_")[:2] == ["low_toxic", "high_clean"]


def test_groups_merge_buckets():
    two = {name: BY[name] for name in ("quality", "toxicity")}
    groups = {"good": ["high-clean", "unknown-clean"], "bad": ["low-toxic"]}
    assert buckets(TABLE, by=two, groups=groups) == ["bad", "good", "high-toxic", "good"]
    assert buckets(TABLE, by=two, groups=groups, others="rest")[2] == "rest"


def test_labels_may_be_categories_or_numbers_of_clusters():
    table = table_of(
        domain=pa.array(["a", "b", "a"]).dictionary_encode(), cluster=[7, None, 12], ok=[True] * 3
    )
    by = {name: {"column": name} for name in ("domain", "cluster", "ok")}
    assert buckets(table, by=by) == ["a-7-true", "b-unknown-true", "a-12-true"]


def test_bucket_sizes_are_in_the_manifest_whatever_the_workers(tmp_path, corpus):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""
input: {{path: {corpus}}}
stages:
  - difficulty
  - attributes:
      by:
        difficulty: {{column: difficulty.compression_ratio, quantiles: [0.25, 0.75]}}
        language: {{column: lang}}
      token_column: difficulty.words
output: {{path: {tmp_path}/out}}
""")
    facts, found = [], []
    for workers in (0, 2):
        run = tamis.Pipeline.from_recipe(recipe, [], str(tmp_path / f"{workers}")).run(
            workers=workers
        )
        manifest = json.loads((tmp_path / f"{workers}" / "manifest.json").read_text())
        facts.append(find(manifest, "buckets"))
        found.append(pq.read_table(tmp_path / f"{workers}" / "data"))
        assert run.counts["dropped"] == 0
    assert facts[0] == facts[1]
    assert found[0]["attributes.bucket"].to_pylist() == found[1]["attributes.bucket"].to_pylist()
    with gzip.open(corpus) as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert sum(one["documents"] for one in facts[0].values()) == len(texts)
    assert sum(one["bytes"] for one in facts[0].values()) == sum(len(t.encode()) for t in texts)
    table = found[0].group_by("attributes.bucket").aggregate([("difficulty.words", "sum")])
    expected = dict(zip(*(table.column(k).to_pylist() for k in range(2)), strict=True))
    assert {name: one["tokens"] for name, one in facts[0].items()} == expected
    lows = [n for n in found[0]["attributes.difficulty"].to_pylist() if n == "low"]
    # Copies have equal scores and stay together.
    assert 0.24 * len(texts) < len(lows) <= len(texts) // 4


def find(value, key):
    """The first value under a key, wherever it is."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((one for one in (find(part, key) for part in value) if one is not None), None)
    return None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("by: {}", "by"),
        ("by: {q: {column: a, cuts: [1], quantiles: [0.5]}}", "not both"),
        ("by: {q: {column: a, cuts: [2, 1]}}", "ascend"),
        ("by: {q: {column: a, quantiles: [50]}}", "between 0 and 1"),
        ("by: {q: {column: a, cuts: [1], names: [x]}}", "1 cuts take 2 different names"),
        ("by: {q: {column: a, names: [x]}}", "labels have names"),
        ("by: {bucket: {column: a}}", "something else than bucket"),
        ("by: {q: {column: a, cuts: [1]}}, groups: {g: [hihg]}", "no bucket hihg.*high"),
        ("by: {q: {column: a}}, groups: {g: [x], h: [x]}", "x is in two groups"),
    ],
)
def test_mistakes_are_one_sentence(settings, message):
    recipe = f"input: x.jsonl\nstages:\n  - attributes: {{{settings}}}\noutput: {{path: out}}\n"
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe)


def test_columns_that_are_no_attribute_say_so(tmp_path):
    with pytest.raises(TamisError, match="holds numbers; say at which cuts"):
        buckets(TABLE, by={"q": {"column": "edu"}})
    with pytest.raises(TamisError, match="needs numbers in the column topic"):
        buckets(TABLE, by={"q": {"column": "topic", "cuts": [1]}})
    with pytest.raises(TamisError, match=r"needs the column eddu.*edu"):
        buckets(TABLE, by={"q": {"column": "eddu", "cuts": [1]}})
    with pytest.raises(TamisError, match="fit attributes again"):
        Attributes(by={"q": {"column": "topic"}}).load(tmp_path)


def test_labels_that_are_ids_are_refused(tmp_path):
    lines = "".join(json.dumps({"id": str(k), "text": "x"}) + "\n" for k in range(10_050))
    (tmp_path / "in.jsonl").write_text(lines)
    stage = Attributes(by={"q": {"column": "id"}})
    pipeline = tamis.Pipeline(
        tamis.read(tmp_path / "in.jsonl"), [stage], tamis.write(tmp_path / "out")
    )
    with pytest.raises(TamisError, match="more than 10,000 buckets; are all of these labels: id"):
        pipeline.run()
