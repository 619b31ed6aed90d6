"""Which documents a selection keeps: by hand, as properties, and in whole runs."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.explain import explain
from tamis.pipeline.recipe import parse_recipe
from tamis.scorers.select import Select, select_rows

SCORES = st.lists(
    st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(-5, 5)),
    min_size=1,
    max_size=40,
).filter(lambda scores: any(one is not None for one in scores))


def table(scores: list[float | None], **columns: list[Any]) -> pa.Table:
    """Documents of 1, 2, 3... bytes."""
    count = len(scores)
    return pa.table(
        {
            "id": [f"d{one}" for one in range(count)],
            "text": ["x" * (one + 1) for one in range(count)],
            "s": pa.array(scores, pa.float64()),
            **columns,
        }
    )


def kept(rows: pa.Table, **settings: Any) -> list[str]:
    ids: list[str] = select_rows(rows, Select(by="s", **settings)).column("id").to_pylist()
    return ids


def test_fractions_amounts_thresholds_and_bands_by_hand() -> None:
    ten = table([float(one) for one in range(10)])
    # One of ten does not exceed a tenth: the second does.
    assert kept(ten, keep_fraction=0.1) == ["d8", "d9"]
    assert kept(ten, keep_fraction=0.09) == ["d9"]
    # Of 55 bytes: 10 do not exceed 18 %, 19 do.
    assert kept(ten, keep_fraction=0.19, unit="bytes") == ["d8", "d9"]
    assert kept(ten, keep_fraction=1.0) == [f"d{one}" for one in range(10)]
    assert kept(ten, keep=3) == ["d7", "d8", "d9"]
    assert kept(ten, keep=11, unit="characters") == ["d8", "d9"]
    assert kept(ten, keep=10, unit="words") == [f"d{one}" for one in range(10)]
    assert kept(ten, keep=0) == []
    assert kept(ten, keep=2, prefer="lowest") == ["d0", "d1"]
    assert kept(ten, threshold=8.0) == ["d8", "d9"]
    assert kept(ten, threshold=1.0, prefer="lowest") == ["d0", "d1"]
    assert kept(ten, band=(0.2, 0.5)) == ["d2", "d3", "d4"]


def test_ties_are_all_kept_or_decided_by_another_column_or_by_a_hash() -> None:
    rows = table([1.0, 1.0, 1.0, 1.0, 0.5], logit=[1.0, 9.0, 8.0, 2.0, 10.0])
    assert kept(rows, keep_fraction=0.2) == ["d0", "d1", "d2", "d3"]
    assert kept(rows, keep=2, tie_by="logit") == ["d1", "d2"]
    exact = kept(rows, keep=2, ties="exact")
    assert len(exact) == 2
    backwards = rows.take(pa.array([4, 3, 2, 1, 0]))
    assert sorted(kept(backwards, keep=2, ties="exact")) == exact
    seeds = {tuple(kept(rows, keep=2, ties="exact", seed=seed)) for seed in range(30)}
    assert len(seeds) > 3


def test_a_document_without_a_score_is_dropped_by_a_rule_of_its_own() -> None:
    rows = table([1.0, None, float("nan"), 0.5])
    fitted = Select(by="s", keep_fraction=1.0).fit_table(rows)
    assert kept(rows, keep_fraction=1.0) == ["d0", "d3"]
    assert kept(rows, threshold=-10.0) == ["d0", "d3"]
    assert kept(rows, band=(0.0, 1.0)) == ["d0", "d3"]
    assert kept(rows, sample="gumbel", keep=4) == ["d0", "d3"]
    # Its text counts for the fraction: a quarter of four documents is exceeded by two.
    assert kept(rows, keep_fraction=0.25) == ["d0", "d3"]
    assert [rule.field for rule in fitted.rules()] == ["no_score", "keep_fraction"]
    with pytest.raises(TamisError, match="none of the 2 documents has a score s"):
        kept(table([None, None]), keep_fraction=0.5)


@given(SCORES, st.floats(0, 1), st.sampled_from(["documents", "bytes"]), st.randoms())
@settings(max_examples=80)
def test_what_is_kept_exceeds_the_fraction_and_no_less_would(
    scores: list[float | None], fraction: float, unit: Any, random: Any
) -> None:
    rows = table(scores)
    size = {f"d{one}": one + 1 if unit == "bytes" else 1 for one in range(len(scores))}
    by_id = dict(zip(rows.column("id").to_pylist(), scores, strict=True))
    total = sum(size.values())
    chosen = kept(rows, keep_fraction=fraction, unit=unit)
    amount = sum(size[one] for one in chosen)
    everything = [one for one in by_id if by_id[one] is not None]
    assert amount / total > fraction or set(chosen) == set(everything)
    assert all(by_id[one] is not None for one in chosen)
    worst = min(by_id[one] for one in chosen)
    # All that score as the worst are in, and without them it would not be enough.
    assert {one for one in everything if by_id[one] >= worst} == set(chosen)
    better = sum(size[one] for one in chosen if by_id[one] > worst)
    assert better / total <= fraction
    order = list(range(len(scores)))
    random.shuffle(order)
    assert sorted(kept(rows.take(pa.array(order)), keep_fraction=fraction, unit=unit)) == sorted(
        chosen
    )


@given(SCORES, st.integers(0, 60))
@settings(max_examples=40)
def test_exact_amounts_are_reached_by_the_last_document(
    scores: list[float | None], amount: int
) -> None:
    rows = table(scores)
    chosen = kept(rows, keep=amount, unit="bytes", ties="exact")
    sizes = [int(one[1:]) + 1 for one in chosen]
    known = sum(place + 1 for place, one in enumerate(scores) if one is not None)
    assert sum(sizes) >= min(amount, known)
    assert not sizes or sum(sizes) - max(sizes) < amount


@given(SCORES, st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_bands_that_meet_share_no_document_and_leave_none_out(
    scores: list[float | None], cut: float
) -> None:
    rows = table(scores)
    parts = [kept(rows, band=band, unit="bytes") for band in ((0.0, cut), (cut, 1.0))]
    assert sorted(itertools.chain(*parts)) == sorted(kept(rows, keep_fraction=1.0))


def test_quotas_of_sources_add_up() -> None:
    rows = table(
        [float(one) for one in range(12)], source=["web"] * 6 + ["books"] * 4 + ["code"] * 2
    )
    assert Counter(one for one in kept(rows, keep=2, per="source")) == Counter(
        ["d4", "d5", "d8", "d9", "d10", "d11"]
    )
    fractions = {"web": 0.3, "books": 1.0, "*": 0.0}
    assert kept(rows, keep_fraction=fractions, per="source") == [
        *("d4", "d5", "d6", "d7", "d8", "d9", "d11"),
    ]
    assert kept(rows, keep={"web": 1, "*": 0}, per="source") == ["d5"]
    with pytest.raises(TamisError, match=r"no quota for source = 'books', 'code'; add one, or"):
        kept(rows, keep={"web": 1}, per="source")


def test_caps_take_the_best_of_each_cluster_first() -> None:
    rows = table([9.0, 8.0, 7.0, 6.0, 5.0, None, 4.0], cluster=[1, 1, 1, 2, 2, 2, None])
    cap = {"column": "cluster", "documents": 1}
    assert kept(rows, keep=3, max_per=cap) == ["d0", "d3", "d6"]
    assert kept(rows, keep=2, max_per=cap) == ["d0", "d3"]
    assert kept(rows, threshold=0.0, max_per={"column": "cluster", "documents": 2}) == [
        *("d0", "d1", "d3", "d4", "d6"),
    ]
    # Half of three is two (places 0 and 1 of 3), half of two is one.
    half = {"column": "cluster", "fraction": 0.5}
    assert kept(rows, keep_fraction=1.0, max_per=half) == ["d0", "d1", "d3", "d6"]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=30))
@settings(max_examples=40)
def test_no_cluster_exceeds_its_cap(documents: list[tuple[float, int]]) -> None:
    scores, clusters = zip(*documents, strict=True)
    rows = table(list(scores), cluster=list(clusters))
    chosen = kept(rows, keep_fraction=1.0, max_per={"column": "cluster", "documents": 2})
    counts = Counter(clusters[int(one[1:])] for one in chosen)
    assert counts == {one: min(2, number) for one, number in Counter(clusters).items()}


def test_a_cold_sample_is_the_top() -> None:
    rows = table([float(one % 17) for one in range(17)])
    cold = kept(rows, keep=5, sample="gumbel", temperature=1e-6)
    assert cold == kept(rows, keep=5)


def test_a_sample_follows_the_order_statistics_of_gumbel_keys() -> None:
    """Of three documents with weights 4, 2, 1, two are drawn one after the other without
    replacement: P({a, b}) = 4/7 * 2/3 + 2/7 * 4/5.
    """
    weights = {"d0": 4.0, "d1": 2.0, "d2": 1.0}
    rows = table([math.log(one) for one in weights.values()])
    draws = 500
    seen = Counter(tuple(kept(rows, keep=2, sample="gumbel", seed=seed)) for seed in range(draws))
    total = sum(weights.values())
    for pair in itertools.combinations(weights, 2):
        expected = sum(
            weights[first] / total * weights[second] / (total - weights[first])
            for first, second in (pair, pair[::-1])
        )
        deviation = math.sqrt(expected * (1 - expected) / draws)
        assert abs(seen[pair] / draws - expected) < 4 * deviation


def test_a_sample_depends_on_ids_and_seed_alone() -> None:
    rows = table([0.0] * 40)
    first = kept(rows, keep=10, sample="gumbel", seed=3)
    assert sorted(kept(rows.slice(0).take(pa.array(range(39, -1, -1))), keep=10,
                       sample="gumbel", seed=3)) == sorted(first)  # fmt: skip
    assert kept(rows, keep=10, sample="gumbel", seed=4) != first


def test_ranks_within_an_error_keep_at_most_so_much_more() -> None:
    generator = np.random.default_rng(5)
    scores = generator.normal(size=5000).tolist()
    rows = table(scores)
    exact = kept(rows, keep_fraction=0.1)
    stage = Select(by="s", keep_fraction=0.1, error=0.002)
    coarse = select_rows(rows, stage).column("id").to_pylist()
    assert set(exact) <= set(coarse)
    assert len(coarse) - len(exact) <= 0.002 * len(scores)


def test_a_batch_alone_is_not_selected_from() -> None:
    with pytest.raises(TamisError, match="select_rows"):
        Select(by="s", keep=1)(table([1.0]))


def wrong(**settings: Any) -> str:
    with pytest.raises(RecipeError) as error:
        Select(by="s", **settings)
    return str(error.value)


def test_settings_that_do_not_fit_together_are_told() -> None:
    assert "by one of keep_fraction, keep, threshold, band: none is there" in wrong()
    assert "keep and threshold are there" in wrong(keep=1, threshold=1.0)
    assert "keep_fraction = 10 is no fraction" in wrong(keep_fraction=10)
    assert "keep = -1 is negative" in wrong(keep=-1)
    assert "the lower one first" in wrong(band=(0.5, 0.1))
    assert "per: source" in wrong(keep_fraction={"web": 0.1})
    assert "needs either tokenizer: FILE or token_column" in wrong(keep=1, unit="tokens")
    assert "are for unit: tokens" in wrong(keep=1, token_column="tokens")
    assert "either documents or fraction" in wrong(keep=1, max_per={"column": "c"})
    assert "draws no sample" in wrong(threshold=1.0, sample="gumbel")
    assert "a sample has none" in wrong(keep=1, sample="gumbel", tie_by="logit")
    assert "leave out ties: exact" in wrong(keep=1, ties="exact", error=0.1)
    assert "leave out prefer: lowest" in wrong(band=(0.1, 0.5), prefer="lowest")


def test_a_setting_of_a_setting_is_told_by_name() -> None:
    with pytest.raises(RecipeError, match=r"max_per.colum: .*did you mean column\?"):
        parse_recipe(recipe(Path("in"), Path("out"), "keep: 5, max_per: {colum: x}"))


def test_a_column_that_is_not_there_or_holds_no_numbers_is_told() -> None:
    with pytest.raises(TamisError, match="needs the column edu; there is id, s, text"):
        select_rows(table([1.0]), Select(by="edu", keep=1))
    with pytest.raises(TamisError, match="needs numbers in the column text"):
        select_rows(table([1.0]), Select(by="text", keep=1))


def write_input(path: Path, count: int = 600) -> Path:
    generator = np.random.default_rng(2)
    sources = ("web", "books", "code")
    with path.open("w") as file:
        for one in range(count):
            record = {
                "id": f"d{one}",
                "text": "word " * int(generator.integers(1, 40)),
                "source": sources[one % 7 % 3],
                "edu": None if one % 50 == 0 else round(float(generator.random()), 2),
            }
            file.write(json.dumps(record) + "\n")
    return path


def recipe(path: Path, out: Path, select: str, more: str = "") -> str:
    return (
        f"input: {{path: {path}}}\nstages:\n  - select: {{by: edu, {select}}}\n"
        f"output: {{path: {out}}}\nslice_size: 20KB\n{more}"
    )


def run(text: str, workers: int = 0) -> tamis.Run:
    plan = parse_recipe(text)[0]
    pipeline = tamis.Pipeline(
        plan.input, plan.stages, plan.output, slice_size=plan.slice_size, measures=plan.measures
    )
    return pipeline.run(workers)


@pytest.mark.parametrize(
    "select",
    [
        "keep_fraction: 0.2, unit: bytes",
        "keep_fraction: {web: 0.1, '*': 0.5}, unit: words, per: source",
        "keep: 50, sample: gumbel, temperature: 0.2",
        "keep: 50, ties: exact",
        "keep_fraction: 0.2, unit: bytes, error: 0.01",
        "keep: 30, max_per: {column: source, documents: 12}",
    ],
)
def test_a_run_keeps_what_a_table_does_with_any_number_of_workers(
    select: str, tmp_path: Path
) -> None:
    path = write_input(tmp_path / "in.jsonl")
    one = run(recipe(path, tmp_path / "one", select))
    two = run(recipe(path, tmp_path / "two", select), workers=2)
    files = [sorted(Path(done.path, "data").glob("*.parquet")) for done in (one, two)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    rows = pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])
    stage = parse_recipe(recipe(path, tmp_path, select))[0].stages[0]
    assert isinstance(stage, Select)
    expected = select_rows(rows, stage).column("id").to_pylist()
    assert pa.concat_tables(map(pq.read_table, files[0])).column("id").to_pylist() == expected
    assert expected


def test_facts_of_a_run_say_what_was_found(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in.jsonl")
    done = run(recipe(path, tmp_path / "out", "keep_fraction: 0.2, unit: bytes"))
    (stage,) = done.manifest["stages"]
    facts = stage["facts"]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    threshold = facts["threshold"]
    chosen = [one for one in records if one["edu"] is not None and one["edu"] >= threshold]
    assert facts["kept_documents"] == done.counts["kept"] == len(chosen)
    assert facts["documents"] == len(records)
    assert facts["without_score"] == 12
    assert facts["kept_bytes"] == sum(len(one["text"]) for one in chosen)
    assert facts["kept_share_of_bytes"] == facts["kept_bytes"] / facts["bytes"] > 0.2
    assert facts["at_threshold"] == sum(one["edu"] == threshold for one in chosen)
    sources = facts["composition"]["sources"]
    assert sources["web"]["documents"] == sum(one["source"] == "web" for one in records)
    assert sources["web"]["kept_documents"] == sum(one["source"] == "web" for one in chosen)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "What it selected" in html
    assert "Share of bytes" in html


def test_the_error_of_ranks_is_in_the_manifest(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in.jsonl")
    done = run(recipe(path, tmp_path / "out", "keep_fraction: 0.2, unit: bytes, error: 0.05"))
    facts = done.manifest["stages"][0]["facts"]
    assert 0 < facts["rank_error"] <= 0.05
    assert 0.2 < facts["kept_share_of_bytes"] < 0.3


def test_explain_and_retune_know_a_selection(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in.jsonl")
    out = tmp_path / "out"
    text = recipe(path, out, "keep_fraction: {web: 0.1, '*': 0.5}, per: source")
    done = run(text)
    kept_ids = set(pq.read_table(out / "data").column("id").to_pylist())
    dropped = next(one for one in (f"d{n}" for n in range(1, 40)) if one not in kept_ids)
    (way,) = explain(out, dropped)
    assert way.steps[-1].decision == "dropped"
    assert "keep_fraction" in way.steps[-1].reason
    assert "threshold" in way.steps[-1].reason
    (without,) = explain(out, "d0")
    assert "no_score" in without.steps[-1].reason
    changed = tamis.retune(out, ["select.keep_fraction.web=0.3"])
    assert changed.kept_before == done.counts["kept"]
    again = run(
        recipe(path, tmp_path / "again", "keep_fraction: {web: 0.3, '*': 0.5}, per: source")
    )
    assert changed.kept_after == again.counts["kept"]
    with pytest.raises(TamisError, match="changes what is measured"):
        tamis.retune(out, ["select.unit=bytes"])


def test_the_column_is_the_score_of_a_stage_before_one_of_that_name(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in.jsonl", 20)
    out = tmp_path / "out"
    text = recipe(path, out, "keep: 5").replace("by: edu", "by: ed")
    with pytest.raises(RecipeError, match=r"needs the column ed, .*did you mean edu"):
        run(text)
    rows = table([1.0, 2.0]).append_column("s.score", pa.array([2.0, 1.0]))
    assert kept(rows, keep=1) == ["d0"]


def test_tokens_are_counted_or_read_from_a_column(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "x": 1}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("x", "isolated")
    model.enable_truncation(2)
    model.save(str(tmp_path / "tokenizer.json"))
    rows = table([3.0, 2.0, 1.0], n=[1, 2, 3])
    # 1, 2 and 3 tokens: the best document has one of six, the second makes it three.
    for counted in ({"tokenizer": tmp_path}, {"token_column": "n"}):
        assert kept(rows, keep_fraction=0.49, unit="tokens", **counted) == ["d0", "d1"]
        assert kept(rows, keep_fraction=0.51, unit="tokens", **counted) == ["d0", "d1", "d2"]
        assert kept(rows, keep_fraction=0.1, unit="tokens", **counted) == ["d0"]
