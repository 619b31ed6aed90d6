# ruff: noqa: E501 - sentences are compared whole
"""Recipes: what is right becomes typed objects, what is wrong is said with line, key and nearest
name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tamis
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.plan import make_plan
from tamis.pipeline.recipe import Recipe, Source, build_recipe, load_recipe, parse_recipe
from tamis.pipeline.stages import Measures, Quantity

GOOD = """\
input: {path: "crawl/*.jsonl", source: web}
words: unicode
stages:
  - gopher_repetition
  - gopher_quality: {min_words: 40, words: whitespace}
  - minhash:
      bands: 20
      rows: 5
output: {path: curated, shard_size: 64MB}
"""


def parse(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "r.yaml", overrides)[0]


def errors(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, *overrides)
    return str(caught.value).splitlines()


def test_a_recipe_becomes_typed_stages() -> None:
    recipe = parse(GOOD)
    repetition, quality, minhash = recipe.stages
    assert recipe.input[0].source == "web"
    assert repetition.words == "unicode", "the recipe's profile, as the stage names none"
    assert (quality.words, quality.min_words, quality.max_words) == ("whitespace", 40, 100_000)
    assert (minhash.bands, minhash.rows) == (20, 5)
    assert recipe.output.shard_size == 64_000_000


def test_a_recipe_survives_the_way_to_plain_values_and_back() -> None:
    recipe = parse(GOOD)
    again = build_recipe(recipe.to_plain(), Source("again"))
    assert again == recipe
    assert again.to_plain() == recipe.to_plain()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min_words: 40", "min_word: 40", "r.yaml:5: gopher_quality.min_word: there is no such setting; did you mean min_words?"),
        ("- gopher_repetition", "- gopher_repetitions", "r.yaml:4: there is no stage gopher_repetitions; did you mean gopher_repetition?"),
        ("bands: 20", "bands: many", "r.yaml:7: minhash.bands = 'many': input should be a valid integer"),
        ("words: unicode", "wrods: unicode", "r.yaml:2: wrods is not a key of a recipe; did you mean words?"),
        ("words: unicode", "words: unicorn", "r.yaml:2: words = 'unicorn': input should be 'whitespace', 'unicode' or 'spacy'"),
        ("source: web", "sauce: web", "r.yaml:1: input.sauce: there is no such setting; did you mean source?"),
        ("shard_size: 64MB", "shard_size: 64 parsecs", "r.yaml:9: output.shard_size = '64 parsecs'"),
        ("  - gopher_repetition\n", "  - gopher_quality\n", "r.yaml:5: the stage gopher_quality stands here a second time"),
        ("rows: 5", "bands: 5", "r.yaml:8: the key bands stands here twice"),
        ("{min_words: 40, words: whitespace}", "{{}}", "r.yaml:5: a key is a name, not a list or a mapping"),
        ("min_words: 40", "[a, b]: 40", "r.yaml:5: a key is a name, not a list or a mapping"),
        ("output: {", "output: [", "r.yaml:9: not valid YAML"),
        ('input: {path: "crawl/*.jsonl", source: web}', "", "r.yaml: there is no input; add input: {path: ...}"),
        ("output: {path: curated, shard_size: 64MB}", "", "r.yaml: there is no output folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    found = errors(GOOD.replace(old, new))
    assert any(line.startswith(expected) for line in found), found


def test_all_mistakes_are_told_at_once() -> None:
    text = (
        GOOD.replace("min_words: 40", "min_word: 40")
        .replace("rows: 5", "row: 5")
        .replace("words: unicode", "wrods: x")
    )
    assert [line.split(":")[1] for line in errors(text)] == ["5", "8", "2"]


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("max_bullet_lines: 90", "max_bullet_lines = 90"),
        ("min_alphabetic_words: 0", "min_alphabetic_words = 0"),
        ("max_hash_ratio: .inf", "max_hash_ratio = inf"),
    ],
)
def test_a_rule_that_can_never_match_is_refused(setting: str, field: str) -> None:
    (found,) = errors(GOOD.replace("min_words: 40", setting))
    assert found.startswith(f"r.yaml:5: gopher_quality.{field} can never drop a document")
    assert "null to switch the rule off" in found


def test_null_switches_a_rule_off() -> None:
    quality = parse(GOOD.replace("min_words: 40", "max_bullet_lines: null")).stages[1]
    assert quality.max_bullet_lines is None


class NeedsScore(tamis.Filter):
    """Drops documents by a column that somebody else must provide."""

    kind = "needs_score"
    min_score: float | None = 0.5

    def requires(self) -> tuple[str, ...]:
        return ("quality.score",)

    def provides(self) -> tuple[Quantity, ...]:
        return (Quantity("score", "fraction", "the column, as it is", 0.0, 1.0),)

    def rules(self) -> tuple[tamis.Rule, ...]:
        return (tamis.Rule("min_score", "<", "score"),)

    def measure(self, documents: tamis.Documents) -> Measures:
        return {"score": documents.batch.column("quality.score").to_numpy()}


class Banned(tamis.Filter):
    """A stage whose ``words`` are something else than a profile."""

    kind = "banned_words"
    words: tuple[str, ...] = ("casino",)

    def measure(self, documents: tamis.Documents) -> Measures:
        return {}


def test_words_of_another_kind_are_left_alone() -> None:
    recipe = parse(GOOD.replace("- gopher_repetition", "- banned_words"))
    assert recipe.stages[0].words == ("casino",)
    stages = [Banned(), tamis.GopherQuality()]
    pipeline = tamis.Pipeline(tamis.read("in"), stages, tamis.write("out"), words="unicode")
    assert [stage.words for stage in pipeline.recipe.stages] == [("casino",), "unicode"]


def test_a_column_that_nothing_provides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one", "quality_score": 0.7}\n')
    pipeline = tamis.Pipeline(
        tamis.read(tmp_path / "in.jsonl"), [NeedsScore()], tamis.write(tmp_path / "run")
    )
    with pytest.raises(
        RecipeError,
        match=r"needs_score needs the column quality\.score, which neither .* did you mean quality_score\?",
    ):
        make_plan(pipeline.recipe, pipeline.source)


def test_overrides_change_settings_before_they_are_checked() -> None:
    recipe = parse(
        GOOD,
        "gopher_quality.min_words=100",
        "gopher_repetition.max_top_ngram.2=0.25",
        "words=whitespace",
        "output.shard_size=1GB",
    )
    repetition, quality, _ = recipe.stages
    assert quality.min_words == 100
    assert repetition.max_top_ngram[2] == 0.25
    assert repetition.words == "whitespace"
    assert recipe.output.shard_size == 10**9


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("gopher_quality.min_word=1", "--set gopher_quality.min_word=1: gopher_quality.min_word: there is no such setting; did you mean min_words?"),
        ("gopher_qualty.min_words=1", "--set gopher_qualty.min_words=1: there is no gopher_qualty in the recipe; did you mean gopher_quality?"),
        ("gopher_quality=1", "--set gopher_quality=1: name the key too"),
        ("min_words", "--set min_words: write it as stage.key=value"),
        ("gopher_quality.min_words=lots", "--set gopher_quality.min_words=lots: gopher_quality.min_words = 'lots'"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(override: str, expected: str) -> None:
    assert errors(GOOD, override)[0].startswith(expected)


def test_no_is_a_language_and_a_number_may_be_written_with_an_exponent() -> None:
    recipe = parse(
        GOOD.replace("source: web", "source: no").replace("min_words: 40", "min_words: 4e1")
    )
    assert recipe.input[0].source == "no"
    assert recipe.stages[1].min_words == 40


def test_yaml_cannot_build_python_objects(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    found = errors(
        GOOD.replace("source: web", f'source: !!python/object/apply:os.mkdir ["{mark}"]')
    )
    assert not mark.exists()
    assert len(found) == 1
    assert found[0].startswith("r.yaml:1: not valid YAML")


def test_a_missing_recipe_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(GOOD)
    with pytest.raises(
        RecipeError, match=r"there is no such recipe; did you mean .*recipe\.yaml\?"
    ):
        load_recipe(tmp_path / "recip.yaml")


def test_a_recipe_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read as a UTF-8 text file"):
        load_recipe(tmp_path / "recipe.yaml")


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        parse_recipe(text)
    except RecipeError as error:
        assert str(error)
