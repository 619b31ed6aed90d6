"""``tamis mix``: tables of runs, runs that it starts, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tamis.cli import app
from tamis.mixers.mix import MixConfig, make_mixer, mix
from tamis.pipeline.errors import TamisError

RUNS = Path(__file__).parents[1] / "vectors"
FIVE = ["academic", "prose", "dialogue", "symbolic", "internet"]


def config(**settings: Any) -> MixConfig:
    return MixConfig.model_validate(settings)


def test_proportions_from_sizes(tmp_path: Path) -> None:
    settings = {
        "sources": {
            "a": {"tokens": 100},
            "b": {"tokens": 20},
            "c": {"tokens": 5},
            "d": {"tokens": 1},
        },
        "budget": 60,
        "method": {"unimax": {"max_epochs": 4}},
        "output": str(tmp_path / "mix"),
    }
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["mix", str(path)])
    assert result.exit_code == 0
    assert "0.311" in result.stdout
    written = yaml.safe_load((tmp_path / "mix" / "proportions.yaml").read_text())
    assert written["proportions"]["d"] == pytest.approx(4 / 60)


def test_a_law_on_published_runs(tmp_path: Path) -> None:
    found = mix(
        config(
            sources=FIVE,
            runs=RUNS / "mixing_laws_5mix.csv",
            method={"mixing_law": {"bootstraps": 20}},
            cap={"internet": 0.5},
        )
    )
    assert sum(found.proportions.values()) == pytest.approx(1)
    assert found.proportions["internet"] <= 0.5 + 1e-9
    assert found.prediction is not None
    assert found.natural is not None
    ours, uniform = (
        np.mean([one.losses[name] for name in FIVE]) for one in (found.prediction, found.natural)
    )
    assert ours < uniform
    text = found.format()
    assert all(name in text for name in FIVE)


def test_the_critical_ratio_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = [
        (1, "pile", 0.125, 2.926166), (1, "python", 0.875, 1.367859),
        (2, "pile", 0.25, 2.880493), (2, "python", 0.75, 1.386261),
        (3, "pile", 0.375, 2.857072), (3, "python", 0.625, 1.408447),
        (4, "pile", 0.5, 2.838757), (4, "python", 0.5, 1.430862),
    ]  # fmt: skip
    with path.open("w") as file:
        csv.writer(file).writerows([("run", "domain", "share", "loss"), *rows])
    method = {"cmr": {"domain": "python", "base": 2.8733676, "tolerance": 0, "bootstraps": 50}}
    found = mix(config(sources=["pile", "python"], runs=path, method=method))
    assert 0.28 <= found.proportions["pile"] <= 0.29
    assert found.intervals is not None
    low, high = found.intervals["python"]
    assert low <= found.proportions["python"] <= high


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "regmx"}, "there is no method regmx; did you mean regmix"),
        ({"method": {"mixing_law": {"klx": 1}}}, "mixing_law has no setting klx"),
        ({"method": {"mixing_law": {"kl": -1}}}, "mixing_law.kl: "),
        ({"method": "mixing_law"}, "mixing_law learns from runs: name a table of them"),
        ({"method": "natural"}, "source a: natural needs to know its tokens"),
        ({"method": "uniform", "runs": RUNS / "mixing_laws_5mix.csv"}, "source a needs one column"),
        ({"method": "mixing_law", "runs": "nowhere.csv"}, "no such file"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TamisError, match=sentence):
        mix(config(**{"sources": ["a", "b"], **settings}))


def test_tables_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("a,b,loss:a,loss:b\n0.5,0.4,2,2\n")
    with pytest.raises(TamisError, match=r"run 1: the proportions sum to 0\.9, not to 1"):
        mix(config(sources=["a", "b"], runs=path, method="mixing_law"))
    path.write_text("a,b,loss:a,loss:b\n0.5,0.5,2,\n")
    with pytest.raises(TamisError, match="run 1: a loss is missing"):
        mix(config(sources=["a", "b"], runs=path, method="mixing_law"))
    path.write_text("a,b,loss:a,loss:b\n0.5,0.5,2,3\n")
    with pytest.raises(TamisError, match="1 runs are too few for 2 sources"):
        mix(config(sources=["a", "b"], runs=path, method="mixing_law"))


def test_every_method_is_made_by_its_name() -> None:
    needed = {
        "cmr": {"domain": "a", "base": 2.0},
        "fixed": {"mixture": {"a": 1}},
        "equitable": {"scale": {"a": 1}, "exponent": {"a": 1}},
    }
    from tamis.mixers.mix import METHODS

    for name in METHODS:
        assert make_mixer({name: needed.get(name)}).kind == name


def training(folder: Path, **settings: Any) -> Path:
    """The configuration of a mixture of letters and digits, with a training of a few steps."""
    words = {"letters": "abc abd acd ", "digits": "123 456 789 "}
    for name, text in words.items():
        lines = [json.dumps({"id": f"{name}{i}", "text": text * (20 + i % 7)}) for i in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    train = {
        "data": {
            "sources": {name: str(folder / f"{name}.jsonl") for name in words},
            "context": 64,
            "held_out": 0.1,
        },
        "model": {"hidden_size": 32, "layers": 1, "heads": 2},
        "tokens": 2000,
        "batch": 4,
        "evaluation": {"times": 1},
    }
    given = {"sources": list(words), "output": str(folder / "mix"), "train": train, **settings}
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_graph_of_skill_it_is_trained(tmp_path: Path) -> None:
    method = {"skill_it": {"graph_share": 0.5, "rounds": 2}}
    path = training(tmp_path, method=method)
    result = CliRunner().invoke(app, ["mix", str(path)])
    assert result.exit_code == 0, result.stdout
    rows = (tmp_path / "mix" / "observations.jsonl").read_text().splitlines()
    first, second = map(json.loads, rows)
    # Both runs begin with the same weights, and are half as long as the training.
    assert first["before"] == second["before"]
    assert first["before"]["letters"] > 7.5
    for number, name in enumerate(["letters", "digits"]):
        manifest = json.loads((tmp_path / "mix" / f"graph-{name}" / "manifest.json").read_text())
        assert manifest["tokens"] < 1500
        observed = (first, second)[number]
        other = ("digits", "letters")[number]
        assert observed["after"][name] < observed["after"][other]
    methods = yaml.safe_load((tmp_path / "mix" / "methods.yaml").read_text())["methods"]
    graph = methods[0]["mix"]["method"]["skill_it"]["graph"]
    fallen = first["before"]["letters"] - first["after"]["letters"]
    assert graph["letters"]["letters"] == pytest.approx(fallen)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [("doge", "doge looks into the steps"), ("aioli", "aioli changes proportions while")],
)
def test_what_cannot_be_found_beforehand(tmp_path: Path, method: str, sentence: str) -> None:
    result = CliRunner().invoke(app, ["mix", str(training(tmp_path, method=method))])
    assert isinstance(result.exception, TamisError)
    assert sentence in str(result.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_runs_are_trained(tmp_path: Path) -> None:
    law = {"mixing_law": {"runs": 5, "form": "log_linear", "bootstraps": 0}}
    path = training(tmp_path, method=law)
    result = CliRunner().invoke(app, ["mix", str(path)])
    assert result.exit_code == 0, result.stdout
    journal = (tmp_path / "mix" / "observations.jsonl").read_text().splitlines()
    assert len(journal) == 5
    again = CliRunner().invoke(app, ["mix", str(path)])
    assert again.stdout == result.stdout
