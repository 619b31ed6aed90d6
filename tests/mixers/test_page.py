"""The page of ``tamis mix``: what it says is what was found."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.mixers.mix import MixConfig, Mixed, mix
from tamis.mixers.page.contents import contents
from tamis.mixers.page.drawings import CELLS, CORNERS

RUNS = Path(__file__).parents[1] / "vectors"
FIVE = ["academic", "prose", "dialogue", "symbolic", "internet"]
NAMES = ["web", "<b>books", "code"]


def losses(shares: np.ndarray) -> np.ndarray:
    """A world whose best mixture lies inside."""
    web, books, code = shares.T
    return np.stack(
        [2 + 0.5 * np.exp(-3 * web), 2 + 0.6 * np.exp(-2 * books), 1 + 0.9 * np.exp(-4 * code)], 1
    )


def found(folder: Path, **settings: Any) -> tuple[Mixed, dict[str, Any], str]:
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    path = folder / "runs.csv"
    with path.open("w") as file:
        rows = csv.writer(file)
        rows.writerow([*NAMES, *(f"loss:{name}" for name in NAMES)])
        rows.writerows(np.hstack([shares, losses(shares)]).tolist())
    given = {
        "sources": NAMES,
        "runs": path,
        "method": {"mixing_law": {"form": "log_linear", "bootstraps": 10}},
        "output": folder / "mix",
        **settings,
    }
    config = MixConfig.model_validate(given)
    mixed = mix(config)
    said = contents(mixed, config.model_dump(mode="json", exclude_defaults=True))
    return mixed, said, (folder / "mix" / "report.html").read_text("utf-8")


def test_the_page_of_three_sources(tmp_path: Path) -> None:
    mixed, said, page = found(tmp_path)
    assert said["verdict"].startswith("Train on ")
    assert "<b>books" not in page
    assert "&lt;b&gt;books" in page
    assert not re.search(r'(?:src|href)="https?:', page)
    triangle = said["triangle"]
    assert len(triangle.cells) == CELLS**2
    assert len(triangle.dots) == 20
    answer = np.array(list(mixed.proportions.values()))
    np.testing.assert_allclose([triangle.answer.x, triangle.answer.y], answer @ CORNERS)
    # Without noise left-out runs are predicted exactly: all dots lie on the line between the axes.
    assert all(missed < 1e-4 < spread for _, missed, spread in said["error"])
    assert len(said["scatter"].dots) == 60


def test_the_value_of_a_source_is_what_the_true_law_says(tmp_path: Path) -> None:
    cap = {"code": 0.2}
    mixed, said, _ = found(tmp_path, cap=cap)
    answer = np.array(list(mixed.proportions.values()))
    assert answer[2] == pytest.approx(0.2, abs=1e-6)
    more = answer * (1 - 0.01 / 0.8)
    more[2] = 0.21
    change = (losses(more[None]) - losses(answer[None]))[0]
    first = said["marginals"][0]
    # The one that the cap forbids is worth most; others gain nothing from each other.
    assert first.name == "code"
    np.testing.assert_allclose(first.changes, change, atol=2e-5)
    assert first.total == pytest.approx(change.mean(), abs=2e-5)
    assert first.gradient < -0.05
    others = [one.gradient for one in said["marginals"][1:]]
    assert others[0] == pytest.approx(others[1], abs=1e-3)
    assert first.total < 0 < said["marginals"][1].total


def test_two_sources_many_and_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = [(0.875, 2.926166), (0.75, 2.880493), (0.625, 2.857072), (0.5, 2.838757)]
    with path.open("w") as file:
        csv.writer(file).writerows(
            [("new", "old", "loss:old", "loss:new"), *((a, 1 - a, b, 2 - a) for a, b in rows)]
        )
    method = {"cmr": {"domain": "new", "base": 2.8733676, "tolerance": 0, "bootstraps": 5}}
    config = MixConfig.model_validate({"sources": ["old", "new"], "runs": path, "method": method})
    said = contents(mix(config), {})
    assert said["triangle"] is None
    assert said["interest"] == "new"
    assert len(said["curve"].dots) == 8
    assert "2.8734 on old" in said["why"]

    method = {"mixing_law": {"bootstraps": 0, "form": "log_linear"}}
    given = {"sources": FIVE, "runs": RUNS / "mixing_laws_5mix.csv", "method": method}
    said = contents(mix(MixConfig.model_validate(given)), {})
    assert len(said["parallel"].runs) == 26
    assert len(said["parallel"].axes) == 5

    output = tmp_path / "sizes"
    given = {"sources": {"a": {"tokens": 3}, "b": {"tokens": 1}}, "method": "natural"}
    mix(MixConfig.model_validate({**given, "output": output}))
    page = (output / "report.html").read_text("utf-8")
    assert "Train on 75.0% a and 25.0% b." in page
    assert "expects nothing of losses" in page
