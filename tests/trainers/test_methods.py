"""Methods by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tamis.pipeline.errors import RecipeError
from tamis.trainers.conditional import Unlikelihood
from tamis.trainers.config import TrainConfig
from tamis.trainers.hooks import Hook
from tamis.trainers.methods import METHODS, make_methods
from tamis.trainers.reweight import Reweight


def test_methods_are_made_in_order():
    found = make_methods(
        [
            {"reweight": {"kind": "linupper", "temperature": 0.4}},
            {"unlikelihood": {"score": "s", "threshold": 1}},
        ]
    )
    assert found == (
        Reweight(kind="linupper", temperature=0.4),
        Unlikelihood(score="s", threshold=1),
    )
    assert make_methods([]) == ()


def test_every_name_is_a_method():
    settings = {"score": "s", "threshold": 1}
    wanted = {"conditional": settings, "filter": settings, "unlikelihood": settings}
    wanted |= {"reward_weighted": {"score": "s"}, "mix": {"method": "skill_it"}}
    for name in METHODS:
        [one] = make_methods([{name: wanted.get(name, {})}])
        assert isinstance(one, Hook)


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine_of_tests.py").write_text(
        "from tamis.trainers.hooks import Hook\n\nclass Mine(Hook):\n    size: int = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    [found] = make_methods([{"mine_of_tests:Mine": {"size": 4}}])
    assert found.size == 4
    assert isinstance(found, Hook)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([{"rewieght": {}}], "there is no method rewieght; did you mean reweight?"),
        (
            [{"reweight": {"temprature": 1}}],
            "methods.reweight.temprature: there is no such setting; did you mean temperature?",
        ),
        ([{"conditional": {"score": "s"}}], "methods.conditional.threshold is missing"),
        (
            [{"reweight": {"temperature": 0}}],
            "methods.reweight.temperature = 0: input should be greater than 0",
        ),
        (
            [{"metadata": {"template": "x"}}],
            "methods.metadata.template = 'x': the template has one {} for the value",
        ),
        ([{"reweight": {}, "metadata": {}}], "methods: each is a name with its settings"),
        ([{"nowhere_at_all:Mine": {}}], "the method nowhere_at_all:Mine cannot be imported"),
        ([{"tamis.trainers.hooks:Forward": {}}], "tamis.trainers.hooks:Forward is no method"),
    ],
)
def test_mistakes_are_one_sentence(methods, message):
    with pytest.raises(RecipeError) as caught:
        make_methods(methods)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_names_every_method() -> None:
    text = PAGE.read_text()
    assert all(f"| `{name}` |" in text for name in METHODS)


def test_the_method_of_the_page_is_one(tmp_path, monkeypatch) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "my_methods.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    named = TrainConfig.model_validate(
        {
            "output": "out",
            "data": {"sources": {"web": "documents.jsonl"}},
            "tokens": 1,
            "methods": ["metadata", {"my_methods:ShortRowsFirst": {"until": 0.2}}],
        }
    ).methods
    _, method = make_methods(named)
    assert [method.context(progress, 64) for progress in (0, 0.19, 0.2, 1)] == [16, 16, 64, 64]
