from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tamis.fit import fit
from tamis.pipeline.errors import TamisError
from tamis.scorers.artefact import read_facts
from tamis.scorers.perplexity_correlations import ESTIMATORS, project


def test_the_projection_of_the_specification() -> None:
    found = project([0.9, 0.1, 0.5, -0.3], [0.3, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(found, [0.3, 0.2, 0.5, 0])
    np.testing.assert_allclose(project([0.2, 0.7], [0.5, 1.0]), [0, 1])
    with pytest.raises(TamisError, match=r"at least 1, not 0\.9"):
        project([1, 2], [0.4, 0.5])


def by_pairs(name: str, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The formulas as they stand, pair by pair."""
    n = len(y)
    ranks = X.argsort(0).argsort(0) + 1
    if name == "product":
        return np.mean([x * one for x, one in zip(X, y, strict=True)], axis=0)
    if name == "spearman":
        gaps = (y.argsort().argsort() + 1)[:, None] - ranks
        return 1 - 6 * (gaps**2).sum(0) / (n * (n * n - 1))
    of_x = {"sign": X, "sign_cdf": ranks / n, "sign_sign": X}[name]
    total = np.zeros(X.shape[1])
    for k, g in combinations(range(n), 2):
        gap = of_x[g] - of_x[k]
        total += np.sign(y[g] - y[k]) * (np.sign(gap) if name == "sign_sign" else gap)
    return 2 * total / (n * (n - 1))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_are_their_formulas(name) -> None:
    choose = np.random.default_rng(0)
    X, y = choose.random((11, 7)), choose.random(11)
    np.testing.assert_allclose(ESTIMATORS[name](X, y), by_pairs(name, X, y), atol=1e-12)


def test_spearman_is_that_of_scipy_where_nothing_is_equal() -> None:
    stats = pytest.importorskip("scipy.stats")
    choose = np.random.default_rng(1)
    X, y = choose.random((20, 5)), choose.random(20)
    expected = [stats.spearmanr(X[:, column], y).statistic for column in range(5)]
    np.testing.assert_allclose(ESTIMATORS["spearman"](X, y), expected)


@pytest.mark.parametrize("name", ["spearman", "sign_cdf"])
def test_structure_is_found_and_independent_noise_hardly(name) -> None:
    """Section 9's verification: .94 with factors, .19 with independent losses, 90 models."""
    choose = np.random.default_rng(2)
    rank = lambda values: values.argsort().argsort()  # noqa: E731
    loading = choose.normal(size=(5, 2000))
    ability = choose.normal(size=(90, 5))
    X = ability @ loading + choose.normal(size=(90, 2000))
    estimate = ESTIMATORS[name](X, ability[:, 0] + choose.normal(size=90) * 0.1)
    assert np.corrcoef(rank(estimate), rank(loading[0]))[0, 1] > 0.85
    weights, X = choose.normal(size=2000), choose.normal(size=(90, 2000))
    estimate = ESTIMATORS[name](X, X @ weights)
    assert 0.1 < np.corrcoef(rank(estimate), rank(weights))[0, 1] < 0.3


def planted(tmp_path: Path, unit: str) -> dict:
    """Eight models; the better one, the lower its loss on documents about wine."""
    choose = np.random.default_rng(3)
    documents, losses = [], [[] for _ in range(8)]
    for number in range(400):
        kind = "wine" if number % 5 == 0 else "cars"
        text = " ".join([kind, *(f"w{one}" for one in choose.integers(50, size=80))])
        documents.append({"id": str(number), "text": text, "url": f"https://{kind}.org/{number}"})
        for model, of_model in enumerate(losses):
            slope = -0.05 if kind == "wine" else 0.0
            bits = 2 + slope * model + choose.normal() * 0.02
            of_model.append({"id": str(number), "bits_per_byte": bits})
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, documents)))
    models = []
    for model, of_model in enumerate(losses):
        path = tmp_path / f"{model}.jsonl"
        path.write_text("\n".join(map(json.dumps, of_model)))
        models.append({"losses": str(path), "benchmark": 0.3 + 0.05 * model})
    config = {
        "data": str(tmp_path / "d.jsonl"), "models": models, "unit": unit, "ratio": 0.2,
        "min_tokens": 20, "per_group": {"documents": 400},
        "training": {"recipe": "preselect", "bucket": 5000, "dim": 8, "lr": 0.5, "epoch": 40},
        "output": str(tmp_path / "m.bin"),
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize("unit", ["document", "group"])
def test_what_goes_with_the_benchmark_is_included(tmp_path: Path, unit: str) -> None:
    planted(tmp_path, unit)
    said = fit("perplexity_correlations", tmp_path / "config.yaml")
    artefact = read_facts(tmp_path / "m.bin")
    assert artefact is not None and artefact.stage == "fasttext"
    facts = artefact.facts
    # A fifth of the text is about wine, and a fifth is wanted.
    wine, of_wine = facts["groups"]["wine.org"]
    assert (wine, of_wine) == (80, 80)
    assert sum(one for one, _ in facts["groups"].values()) <= 82
    assert facts["auc"] > 0.95
    assert "8 models" in said and "standard deviation of 0.38" in said
