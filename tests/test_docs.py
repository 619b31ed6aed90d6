"""The documentation's examples run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import tamis
from tamis.fit import METHODS
from tamis.mixers.mix import MixConfig, make_mixer
from tamis.pipeline import catalogue
from tamis.pipeline.documents import content_id
from tamis.pipeline.recipe import load_recipe, load_settings, parse_recipe
from tamis.trainers.config import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        pattern = rf"^```{language}\n(.*?)^```"
        matches = re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found += [(page.name, block) for block in matches]
    return found


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_recipes_and_trainings_in_the_pages_are_right(page: str, text: str, tmp_path: Path) -> None:
    if "stages:" in text:
        assert parse_recipe(text, page)[0].stages
    elif "method:" in text:
        (tmp_path / page).write_text(text)
        assert make_mixer(load_settings(tmp_path / page, MixConfig).method).kind
    else:
        (tmp_path / page).write_text(text)
        assert load_settings(tmp_path / page, TrainConfig).tokens


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name
)
def test_recipes_and_trainings_in_examples_are_right(path: Path) -> None:
    if path.name.startswith("train"):
        assert load_settings(path, TrainConfig).tokens
    elif path.stem in METHODS:
        module, _, name = METHODS[path.stem].partition(":")
        assert load_settings(path, getattr(import_module(module), name)).output
    else:
        assert load_recipe(path)[0].stages


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)


def of_page(name: str) -> list[str]:
    return [block for page, block in blocks("python") if page == name]


def test_the_function_of_the_page_is_a_stage_and_its_tests_pass(tmp_path: Path) -> None:
    function, tests = of_page("write-a-stage.md")[:2]
    (tmp_path / "my_filters.py").write_text(function)
    (tmp_path / "test_my_filters.py").write_text(tests)
    page = (ROOT / "docs" / "write-a-stage.md").read_text(encoding="utf-8")
    recipe = re.findall(r"^    # recipe.yaml\n(.*?)^$", page, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "recipe.yaml").write_text(textwrap.dedent(recipe))
    (tmp_path / "in.jsonl").write_text(
        '{"id": "a", "text": "quiet words"}\n{"id": "b", "text": "LOUD WORDS"}\n'
    )
    for command in (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider"],
        ["-m", "tamis.cli", "run", "recipe.yaml"],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (way,) = tamis.explain(tmp_path / "out", "b")
    assert not way.kept


def test_the_stage_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(one for one in of_page("write-a-stage.md") if "class Shouting" in one)
    (tmp_path / "in.jsonl").write_text('{"text": "quiet words"}\n{"text": "LOUD WORDS"}\n')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "write-a-stage.md", "exec"), {"__name__": "page"})
    (way,) = tamis.explain("out", content_id("in.jsonl", "LOUD WORDS"))
    assert not way.kept
    assert tamis.retune("out", ["shouting.max_capitals=1e-9"]).kept_after == 1
    assert tamis.retune("out", ["shouting.max_capitals=0.95"]).newly_kept == 1


def test_the_python_example_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (ROOT / "examples" / "python_pipeline.py").read_text()
    monkeypatch.setattr("sys.argv", ["python_pipeline.py", str(corpus), str(tmp_path / "out")])
    exec(compile(code, "python_pipeline.py", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "out" / "report.html").exists()


def test_the_page_of_stages_is_what_the_code_says() -> None:
    """Mend it with: python -m tamis.pipeline.catalogue > docs/stages.md"""
    assert (ROOT / "docs" / "stages.md").read_text(encoding="utf-8") == catalogue.page()
