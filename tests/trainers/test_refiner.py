"""Language models that are tuned to write programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamis.filters.refine import execute
from tamis.filters.refine.chunks import Chunk, chunks
from tamis.filters.refine.fit import Example
from tamis.filters.refine.prompts import SYSTEM, chunk_prompt
from tamis.filters.refine.quality import Gold
from tamis.filters.refine.writers import read_writer
from tamis.fit import fit
from tamis.generation.generator import Prompt
from tamis.generation.transformers import Transformers
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import read_facts
from tamis.trainers.answers import Answers, templated, write_template
from tamis.trainers.refiner import FitGenerator, Pair, make_pairs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

BIRDS = ("heron", "stork", "crane", "egret", "ibis", "swan", "duck", "goose")
SIZES = {"window": 60, "max_tokens": 90, "max_prompt_tokens": 130}


def page(n: int) -> dict[str, str]:
    """Two kinds of pages with a frame, and one of errors, on ten sites."""
    bird = f"The {BIRDS[n % 8]} {n} sleeps."
    program, judged = "remove_lines(line_start=0, line_end=0)", ""
    text = f"Home\n{bird}"
    if n % 3 == 0:
        text, program = f"{bird}\nMenu", "remove_lines(line_start=1, line_end=1)"
    if n % 8 == 7:
        text, program, judged = f"404 Not Found {n}", "keep_chunk()", "drop_doc()"
    url = f"https://s{n % 10}.test/{n}"
    return {"text": text, "url": url, "program": program, "document_program": judged}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl"
    path.write_text("".join(json.dumps(page(n)) + "\n" for n in range(100)))
    return path


def write_config(data: Path, folder: Path, **settings: Any) -> Path:
    given = {"method": "generate", "data": [str(data)], "labels": ["program"], **SIZES}
    path = folder / "refiner.yaml"
    path.write_text(json.dumps({**given, "output": str(folder / "refiner"), **settings}))
    return path


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small decoder that was tuned on the pages, and what was said of it."""
    folder = tmp_path_factory.mktemp("tuned")
    shape = {"hidden_size": 64, "layers": 2, "heads": 2}
    more = {"model": shape, "epochs": 4, "learning_rate": 3e-3, "batch_tokens": 2048}
    said = fit("refiner", write_config(data, folder, held_out=["s1.test", "s2.test"], **more))
    return folder / "refiner", said


def test_it_writes_programs_for_pages_that_it_learned_and_others(tuned: tuple[Path, str]) -> None:
    folder, said = tuned
    facts = read_facts(folder)
    assert facts is not None and facts.stage == "refine"
    writer = read_writer({**facts.settings["writer"], "cache": False})
    pages = [page(n) for n in (0, 3, 4, 5, 13, 22)]
    column = pa.array([one["text"] for one in pages], pa.large_string())
    documents = Documents(pa.RecordBatch.from_pydict({"text": column}))
    assert writer.chunk_programs(documents) == [one["program"] for one in pages]
    assert writer.document_programs(documents) == ["keep_doc()"] * 6
    error = Documents(pa.RecordBatch.from_pydict({"text": [page(15)["text"]]}))
    assert writer.document_programs(error) == ["drop_doc()"]
    quality = facts.facts["held out"]["program"]
    assert quality["pages"] == 20
    assert quality["lines"]["f1"] > 0.9 and quality["documents"]["f1"] > 0.9
    assert quality["failures"] == quality["cut_answers"] == 0
    assert f"F1 {quality['lines']['f1']:.3f}" in said
    assert (facts.recipe["method"], facts.facts["left_out"]) == ("generate", 0)


def test_a_finished_training_is_not_done_again_and_another_one_is_refused(
    tuned: tuple[Path, str], data: Path
) -> None:
    folder, said = tuned
    config = folder.parent / "refiner.yaml"
    weights = (folder / "model" / "model.safetensors").read_bytes()
    assert fit("refiner", config) == said
    assert (folder / "model" / "model.safetensors").read_bytes() == weights
    other = json.loads(config.read_text()) | {"epochs": 5}
    config.with_name("other.yaml").write_text(json.dumps(other))
    with pytest.raises(TamisError, match="refiner holds another training; choose another output"):
        fit("refiner", config.with_name("other.yaml"))


def test_a_training_is_gone_on_from(tuned: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    more = {"start_from": str(tuned[0]), "epochs": 1, "batch_tokens": 8192, "level": "document"}
    held_out = ["s1.test", "s2.test"]
    said = fit("refiner", write_config(data, tmp_path, held_out=held_out, **more))
    assert "no chunk programs were learned" in said
    facts = read_facts(tmp_path / "refiner")
    assert facts is not None
    quality = facts.facts["held out"]["program"]
    assert quality["documents"]["f1"] > 0.9 and quality["cut_answers"] == 0
    before, after = (
        (one / "model" / "model.safetensors").read_bytes()
        for one in (tuned[0], tmp_path / "refiner")
    )
    assert len(before) == len(after) and before != after


def test_the_answer_alone_is_learned_from_as_it_is_asked_for(tmp_path: Path) -> None:
    from tamis.trainers.tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer()
    prompt = Prompt("[doc]\n[000]Größe <|im_end|>\n[/doc]", SYSTEM)
    batch = pa.RecordBatch.from_pydict({"text": [templated(prompt)], "answer": ["keep_doc()"]})
    (found,) = Answers().encode(batch, tokenizer, 0) or ()
    assert found is not None
    tokens, weights = found
    assert weights is not None
    assert bytes(tokens[weights > 0][:-1].tolist()) == b"keep_doc()"
    assert (tokens[0], tokens[-1]) == (tokenizer.bos, tokenizer.eos)
    assert weights.tolist() == [0.0] * (len(tokens) - 11) + [1.0] * 11
    with pytest.raises(TamisError, match="have no column anser; did you mean answer"):
        Answers(column="anser").encode(batch, tokenizer, 0)
    # The model is asked with the same tokens.
    (tmp_path / "config.json").write_text("{}")
    tokenizer.save(tmp_path)
    write_template(tmp_path)
    asked = Transformers(model=str(tmp_path))._tokenizer().encode([prompt])
    assert asked == [tokens[:-11].tolist()]


def test_pairs() -> None:
    text = "Home\nThe lake is low.\nSee http://a.test/b now.\nThe lake is dry.\nMenu"
    program = (
        "# lines 0-1\nremove_lines(line_start=0, line_end=0)\n"
        '# lines 2-2\nnormalize(source_str=" http://a.test/b", target_str="")\n'
        "# lines 3-4\nremove_lines(line_start=4, line_end=4)"
    )
    kept = Example(Gold(text, program, True), (), "program", False)
    dropped = Example(Gold("404", "remove_lines(all=True)", False), (), "program", False)

    def count(texts: Any) -> list[int]:
        return [len(one.split()) for one in texts]

    pairs = make_pairs([kept, dropped], count, window=8)
    windows = chunks(text, count, 8)
    assert len(windows) == 3
    assert pairs == [
        Pair(chunk_prompt(windows[0]), "remove_lines(line_start=0, line_end=0)"),
        Pair(chunk_prompt(windows[1]), 'normalize(source_str=" http://a.test/b", target_str="")'),
        Pair(chunk_prompt(windows[2]), "remove_lines(line_start=4, line_end=4)"),
        Pair(Prompt(text, SYSTEM), "keep_doc()"),
        Pair(Prompt("404", SYSTEM), "drop_doc()"),
    ]
    assert execute(text, "\n".join(one.answer for one in pairs[:3])) == execute(text, program)
    assert make_pairs([kept, dropped], count, "document") == pairs[3:]
    (alone,) = make_pairs([kept], count, "chunk")
    assert alone.answer.split("\n")[:2] == [
        "remove_lines(line_start=0, line_end=0)", "remove_lines(line_start=4, line_end=4)",
    ]  # fmt: skip


def write_llama(folder: Path) -> Path:
    """A small Llama with random weights, and bytes as tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tamis.trainers.tokenizer import byte_tokenizer

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=400, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save(folder)
    return folder


def test_any_model_of_transformers(data: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    llama = write_llama(tmp_path / "llama")
    outputs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        more = {"epochs": 3, "learning_rate": 1e-2, "batch_tokens": 4096, "max_tokens": 12}
        config = write_config(data, tmp_path / name, transformers=str(llama), **more)
        said = fit("refiner", config)
        outputs.append(tmp_path / name / "refiner")
    assert "answers about" in said
    files = [sorted(one.name for one in folder.iterdir()) for folder in outputs]
    assert files[0] == files[1]
    assert "config.json" in files[0]
    for name in files[0]:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    facts = read_facts(outputs[0])
    assert facts is not None
    assert facts.facts["held out"]["program"]["cut_answers"] > 0.5
    losses = [answer_loss(AutoModelForCausalLM.from_pretrained(one)) for one in (llama, outputs[0])]
    assert losses[0] > 5 and losses[1] < 0.7 * losses[0]
    with pytest.raises(TamisError, match="exists and is not empty; choose another output"):
        fit("refiner", config)


def answer_loss(model: Any) -> float:
    """The mean loss of an answer without batch and padding."""
    prompt = templated(chunk_prompt(Chunk(0, 1, f"[000]Home\n[001]{page(4)['text']}")))
    answer = [*b"remove_lines(line_start=0, line_end=0)", 257]
    ids = torch.tensor([[256, *prompt.encode(), *answer]])
    with torch.no_grad():
        scores = model(ids).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
    return -float(scores[np.arange(len(answer)), answer].mean())


def test_padding_changes_no_loss(tmp_path: Path) -> None:
    from tamis.trainers.tune import Row, _loss, open_model

    model = open_model(write_llama(tmp_path)).eval()
    rows = [Row([256, 1, 2, 3], [5, 257]), Row([256, 9], [8, 8, 8, 257]), Row([256] * 9, [257])]
    with torch.no_grad():
        alone = [float(_loss(model, [row])) * len(row.answer) for row in rows]
        assert float(_loss(model, rows)) == pytest.approx(sum(alone) / 7, rel=1e-5)
        (logits,) = model(torch.tensor([[256, 1, 2, 3, 5]])).logits
    expected = -logits.log_softmax(-1)[[3, 4], [5, 257]].sum()
    assert alone[0] == pytest.approx(float(expected), rel=1e-5)


def test_mistakes_are_one_sentence(data: Path, tmp_path: Path) -> None:
    def refused(match: str, kind: type[Exception] = RecipeError, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            fit("refiner", write_config(data, tmp_path, **settings))

    refused("name one of them")
    refused("name one of them", model={"preset": "1M"}, transformers="x")
    refused("there is no model in", transformers=str(tmp_path / "none"))
    refused("there is no model 2M", model={"preset": "2M"})
    refused("max_prompt_tokens = 60: .* no room", model={"preset": "1M"}, max_prompt_tokens=60)
    refused("there is no folder", TamisError, start_from=str(tmp_path / "none"))
    refused("method", method="genrate")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    refused("cannot be loaded", TamisError, transformers=str(tmp_path / "broken"))
    with pytest.raises(RecipeError, match="name one of them"):
        FitGenerator(data=("x",), labels=("program",), output=tmp_path)
