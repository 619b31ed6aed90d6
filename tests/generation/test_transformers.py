"""Answers of a model in this process."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tamis.generation.generator import Prompt
from tamis.generation.setting import read_generator
from tamis.pipeline.errors import RecipeError, TamisError
from tests.generation.conftest import TEMPLATE, write_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [Prompt("river " * n, "Answer.") for n in (1, 4, 2, 9, 3, 1, 7)]


def make(folder, **settings):
    return read_generator({"transformers": {"model": str(folder), **settings}})


def greedy(folder, ids: list[int], count: int) -> list[int]:
    """Token after token without batch, padding and cache."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_answers_are_those_of_a_plain_loop(tmp_path, template):
    folder = write_model(tmp_path / "tiny", template=template)
    text = (
        "Answer.\n\nriver \n\n"
        if template is None
        else (
            "<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\nriver <|im_end|>\n"
            "<|im_start|>assistant\n"
        )
    )
    begin = [256] if template is None else []
    ids = [*begin, *text.encode()]
    expected = greedy(folder, ids, 12)
    (answer,) = make(folder).generate(PROMPTS[:1], 12)
    end = expected.index(257) if 257 in expected else 12
    assert answer.text == bytes(expected[:end]).decode(errors="replace")
    assert answer.prompt_tokens == len(ids)
    assert (answer.tokens, answer.cut) == ((12, True) if end == 12 else (end + 1, False))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_answers_as_prompts_alone_do(model_folder, temperature):
    alone = [make(model_folder).generate([one], 10, temperature)[0] for one in PROMPTS]
    assert len({one.text for one in alone}) > 3
    assert make(model_folder).generate(PROMPTS, 10, temperature) == alone
    assert make(model_folder, batch_tokens=120).generate(PROMPTS, 10, temperature) == alone


def test_batches_hold_prompts_of_like_length(model_folder):
    generator = make(model_folder, batch_tokens=100)
    batches = list(generator._batches({0: 10, 1: 80, 2: 12, 3: 200, 4: 10}, 10))
    assert batches == [[3], [1], [2, 0, 4]]


def test_seeds_draw_other_answers_and_greedy_ones_have_none(model_folder):
    one, other = make(model_folder, seed=1), make(model_folder, seed=2)
    assert one.generate(PROMPTS, 8, 1.0) != other.generate(PROMPTS, 8, 1.0)
    assert one.generate(PROMPTS, 8) == other.generate(PROMPTS, 8)
    assert one.identity() != other.identity()


def test_tokens_are_drawn_with_their_probabilities():
    from tamis.generation.transformers import _Draw

    draws, temperature = 20_000, 0.7
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    noisy = _Draw(temperature, range(draws))(torch.zeros(draws, 1), logits.expand(draws, -1))
    found = np.bincount(noisy.argmax(1).numpy(), minlength=4) / draws
    expected = (logits / temperature).softmax(0).numpy()
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / draws)


def test_a_prompt_without_room_is_answered_with_nothing(tmp_path):
    folder = write_model(tmp_path / "tiny", context=40)
    fits, short, none = make(folder).generate([Prompt("a"), Prompt("b" * 32), Prompt("c" * 99)], 8)
    assert fits.tokens <= 8 and fits.prompt_tokens == 4
    assert short.prompt_tokens == 35 and 1 <= short.tokens <= 5
    assert (none.text, none.tokens, none.cut) == ("", 0, True)


def test_nothing_is_asked_without_prompts(model_folder):
    assert make(model_folder).generate([], 8) == []
    assert make(model_folder).count_tokens([]) == []
    assert make(model_folder).count_tokens(["abc", "", "é"]) == [3, 0, 2]


def test_the_identity_is_what_answers_depend_on(model_folder, chat_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "tiny")
    assert make(copy).identity() == make(model_folder).identity()
    identities = [make(model_folder).identity(), make(chat_folder).identity()]
    identities.append(make(chat_folder, template="plain").identity())
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    identities.append(make(copy).identity())
    assert len(set(identities)) == 4


def test_a_training_is_named_by_its_folder(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "training" / "model")
    assert make(tmp_path / "training").models() == (tmp_path / "training" / "model",)


def test_templates_come_from_files_too(model_folder, chat_folder, tmp_path):
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    given = make(model_folder, template=str(tmp_path / "chat.jinja"))
    assert given.generate(PROMPTS, 6) == make(chat_folder).generate(PROMPTS, 6)
    plain = make(chat_folder, template="plain")
    assert plain.generate(PROMPTS, 6) == make(model_folder).generate(PROMPTS, 6)


def test_mistakes_are_one_sentence(model_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"there is no model in .*tinny; did you mean .*/tiny"):
        make(model_folder.parent / "tinny").models()
    with pytest.raises(RecipeError, match=r"there is no template .*chat\.jinja"):
        make(model_folder, template="chat.jinja").models()
    failing = "{{ raise_exception('system prompts are not read') }}"
    folder = write_model(tmp_path / "tiny", template=failing)
    with pytest.raises(TamisError, match=r"fails: system prompts are not read; template: plain"):
        make(folder).generate(PROMPTS, 4)
    (folder / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(TamisError, match=r"The model in .*tiny cannot be loaded"):
        make(folder, template="plain").generate(PROMPTS, 4)
