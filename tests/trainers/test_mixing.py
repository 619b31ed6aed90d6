"""Mixers that decide while a model trains, in whole trainings."""

from __future__ import annotations

import json
import random
import string

import polars as pl
import pytest

from tamis.mixers.aioli import Aioli
from tamis.mixers.problem import Problem, Source
from tamis.pipeline.errors import TamisError
from tamis.trainers.config import TrainConfig
from tamis.trainers.run import train
from tamis.trainers.view import View

pytestmark = pytest.mark.usefixtures("one_thread")

BUDGET = 16_000
AIOLI = {
    "aioli": {"rounds": 2, "sweeps": 1, "probe_share": 0.4, "one_hot": 0.8, "eta": 3.0, "ema": None}
}


@pytest.fixture
def settings(tmp_path):
    """Letters, from which much can be learned, and noise."""
    dice = random.Random(0)
    for name in ("letters", "noise"):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for number in range(150):
                text = "abcdefgh " * 20
                if name == "noise":
                    text = "".join(dice.choice(string.ascii_lowercase) for _ in range(180))
                file.write(json.dumps({"id": f"{name}{number}", "text": f"{number} {text}"}) + "\n")
    return {
        "output": tmp_path / "out",
        "data": {
            "sources": {name: str(tmp_path / f"{name}.jsonl") for name in ("letters", "noise")},
            "context": 32,
            "held_out": 0.1,
        },
        "model": {"hidden_size": 16, "heads": 2, "layers": 1},
        "tokens": BUDGET,
        "batch": 4,
        "optimizer": {"lr": 0.01},
        "evaluation": {"times": 1},
        "checkpoints": {"minutes": 0},
        "device": "cpu",
    }


def shares(out) -> pl.DataFrame:
    """The share of each step's tokens that is letters."""
    metrics = pl.read_parquet(out / "metrics.parquet")
    letters = pl.col("tokens_letters").fill_null(0)
    return metrics.select(
        "step", "tokens", (letters / (letters + pl.col("tokens_noise").fill_null(0)))
    )


class Stop(View):
    """Interrupts at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(quiet=True)
        self.at = step

    def step(self, metrics) -> None:
        if metrics["step"] == self.at:
            raise KeyboardInterrupt


def test_rows_are_of_what_the_mixer_asked_for(settings, monkeypatch) -> None:
    told = []
    learn = Aioli.learn
    with monkeypatch.context() as patched:
        patched.setattr(Aioli, "learn", lambda *given: (told.append(given[2]), learn(*given)))
        config = settings | {"methods": [{"mix": {"method": AIOLI}}]}
        out = train(TrainConfig.model_validate(config))
    # The same mixer, told the same: two rounds of two probes and a phase on what they showed.
    names = ("letters", "noise")
    mixer = Aioli(**AIOLI["aioli"]).start(Problem(sources=tuple(Source(name=one) for one in names)))
    found, begin = shares(out), 0.0
    for one in told:
        phase = mixer.propose()
        assert one.before["letters"] > 0
        ends = (begin + phase.share) * BUDGET
        rows = found.filter(pl.col("tokens").is_between(begin * BUDGET + 200, ends))
        assert rows["tokens_letters"].mean() == pytest.approx(phase.mixture["letters"], abs=0.05)
        begin += phase.share
        mixer.observe(one)
    assert len(told) in (5, 6)
    assert told[0].after["letters"] < told[0].before["letters"]
    assert told[1].before == told[0].after


def test_interrupted_in_the_middle_the_mixture_is_the_same(settings, tmp_path) -> None:
    methods = [{"mix": {"method": AIOLI}}]
    whole = train(TrainConfig.model_validate(settings | {"methods": methods}))
    changes = {"methods": methods, "output": tmp_path / "stopped"}
    for step in (9, 40, 90):
        with pytest.raises(KeyboardInterrupt):
            train(TrainConfig.model_validate(settings | changes), Stop(step))
    out = train(TrainConfig.model_validate(settings | changes))
    assert shares(out).equals(shares(whole))
    model = (out / "model" / "model.safetensors").read_bytes()
    assert model == (whole / "model" / "model.safetensors").read_bytes()


def test_given_proportions(settings) -> None:
    methods = [{"mix": {"method": {"fixed": {"mixture": {"letters": 0.9, "noise": 0.1}}}}}]
    out = train(TrainConfig.model_validate(settings | {"methods": methods}))
    assert shares(out)["tokens_letters"].mean() == pytest.approx(0.9, abs=0.02)


def test_what_is_refused(settings) -> None:
    def run(**mix):
        changes = {"methods": [{"mix": mix}], "output": settings["output"] / mix["method"]}
        return train(TrainConfig.model_validate(settings | changes))

    with pytest.raises(TamisError, match="there is no method aoli"):
        run(method="aoli")
    with pytest.raises(TamisError, match="mixing_law needs runs of its own before the training"):
        run(method="mixing_law")
    with pytest.raises(TamisError, match="floor: no source books"):
        run(method="uniform", floor={"books": 0.1})
    no_text = {**settings["data"], "held_out": 0.0}
    with pytest.raises(TamisError, match="asks for the loss on held-out text of letters, noise"):
        train(
            TrainConfig.model_validate(
                settings | {"data": no_text, "methods": [{"mix": {"method": AIOLI}}]}
            )
        )
