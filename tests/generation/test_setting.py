"""Generators as settings of stages."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from tamis.generation.generator import Prompt, plain_text
from tamis.generation.setting import Generation, read_generator
from tamis.pipeline.errors import RecipeError


class Stage(BaseModel):
    generator: Generation


def test_a_setting_comes_back_as_it_was():
    stage = Stage(generator={"transformers": "a/folder"})
    plain = stage.model_dump(mode="json")
    assert plain["generator"]["transformers"]["model"] == "a/folder"
    assert Stage(**plain) == stage
    server = {"openai": {"url": "http://localhost:8000/v1/", "model": "small"}}
    assert Stage(generator=server).generator.url == "http://localhost:8000/v1"
    assert read_generator(stage.generator) is stage.generator


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("gpt", r"it is \{openai: "),
        ({"openai": {}, "vllm": {}}, r"it is \{openai: "),
        ({"openia": {}}, "there is no generator openia; did you mean openai?"),
        ({"openai": "small"}, r"openai needs its url: \{openai: \{url: ...\}\}"),
        ({"openai": {"url": "localhost:8000", "model": "m"}}, "openai.url: it is an address like"),
        ({"openai": {"url": "http://a:b@c/v1", "model": "m"}}, "a password does not belong"),
        ({"openai": {"url": "http://c/v1", "model": "m", "urll": 1}}, "has no setting urll"),
        ({"transformers": {"model": "m", "dtype": "int3"}}, "transformers.dtype: input should be"),
        ({"vllm": None}, "vllm needs its model"),
    ],
)
def test_mistakes_are_one_sentence(value, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read_generator(value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValidationError, match=sentence):
        Stage(generator=value)


def test_a_key_in_the_place_of_its_variable_is_not_repeated():
    with pytest.raises(ValueError, match="name of an environment variable") as error:
        read_generator({"openai": {"url": "http://c/v1", "model": "m", "key_variable": "sk-1aB"}})
    assert "sk-1aB" not in str(error.value)


def test_vllm_says_how_it_is_installed():
    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(RecipeError, match=r"pip install 'tamis\[vllm\]'"):
            read_generator({"vllm": "folder"}).models()


def test_the_plain_form():
    assert plain_text(Prompt("u", "s")) == "s\n\nu\n\n"
    assert plain_text(Prompt("{user}")) == "{user}\n\n"
