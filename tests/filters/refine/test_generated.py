"""Programs by a language model behind a server."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tamis.filters.refine.generated import Generated
from tamis.filters.refine.prompts import DOCUMENT_ANSWER_TOKENS, SYSTEM, TEMPLATE_TOKENS
from tamis.filters.refine.stage import ProX
from tamis.filters.refine.writers import read_writer
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tamis.trainers.tokenizer import byte_tokenizer
from tests.generation.servers import Server, reply, serving

pytest.importorskip("httpx")
pytest.importorskip("torch")

TEXT = "\n".join(
    [
        "Home | About | Menu",
        *(f"The river was low in the summer of {year}, they say." for year in range(1901, 1921)),
        "Subscribe to the Menu",
    ]
)
CLEAN = "\n".join(TEXT.split("\n")[1:-1])


def knows(handler, body) -> None:
    """Drops adverts, and removes the lines that end with "Menu"."""
    user = body["messages"][-1]["content"]
    if user.startswith("[doc]\n"):
        menus = re.findall(r"^\[(\d+)\].*Menu$", user, re.MULTILINE)
        text = "\n".join(f"remove_lines(line_start={int(n)}, line_end={int(n)})" for n in menus)
    else:
        text = "drop_doc()" if "ADVERT" in user else "keep_doc()"
    text = text or "keep_all()"
    cut = len(text) > 4 * body["max_tokens"]
    choice = {
        "message": {"content": text[: 4 * body["max_tokens"]]},
        "finish_reason": "length" if cut else "stop",
    }
    reply(handler, 200, {"choices": [choice]})


@pytest.fixture
def server():
    with serving(knows) as one:
        yield one


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save(folder)
    return folder


def setting(server: Server | str, tokenizer: Path, **more):
    url = server if isinstance(server, str) else server.url
    model = {"url": url, "model": "small", "tokenizer": str(tokenizer), "pause": 0.001}
    return {"generator": {"openai": model}, "cache": False, **more}


def documents(*texts: str | None, alive: list[bool] | None = None) -> Documents:
    batch = pa.RecordBatch.from_pydict(
        {"id": [str(at) for at in range(len(texts))], "text": pa.array(texts, pa.large_string())}
    )
    return Documents(batch, None if alive is None else np.array(alive))


def test_programs_of_windows_count_from_the_beginning_of_the_document(server, tokenizer):
    writer = read_writer(setting(server, tokenizer, window=500))
    program, other = writer.chunk_programs(documents(TEXT, "a Menu\nb"))
    calls = [one for one in program.split("\n") if not one.startswith("#")]
    assert calls == [
        "remove_lines(line_start=0, line_end=0)", "keep_all()",
        "remove_lines(line_start=21, line_end=21)",
    ]  # fmt: skip
    assert other == "remove_lines(line_start=0, line_end=0)"
    assert len(server.bodies) == 4
    assert {body["max_tokens"] for body in server.bodies} == {256}
    first = server.bodies[0]["messages"]
    assert first[0] == {"role": "system", "content": SYSTEM}
    assert all(one["messages"][1]["content"].endswith("\n[/doc]") for one in server.bodies)


def test_document_programs_are_asked_for_with_what_fits(server, tokenizer):
    room = 300 - len(SYSTEM) - TEMPLATE_TOKENS
    writer = read_writer(setting(server, tokenizer, max_prompt_tokens=300))
    texts = ["x" * 5000, "an ADVERT", "x" * room + "ADVERT"]
    assert writer.document_programs(documents(*texts)) == ["keep_doc()", "drop_doc()", "keep_doc()"]
    shown = {body["messages"][1]["content"] for body in server.bodies}
    assert shown == {"x" * room, "an ADVERT"}


def test_nobody_is_asked_about_nothing(server, tokenizer):
    writer = read_writer(setting(server, tokenizer))
    given = documents("", None, " \n\t", "gone Menu", "here Menu", alive=[True] * 3 + [False, True])
    call = "remove_lines(line_start=0, line_end=0)"
    assert writer.chunk_programs(given) == ["", "", "", "", call]
    assert writer.document_programs(given) == ["", "", "", "", "keep_doc()"]
    assert len(server.bodies) == 2
    nothing = documents("gone", alive=[False])
    assert writer.chunk_programs(nothing) == writer.document_programs(nothing) == [""]
    assert tuple(writer.document_cost(nothing)) == (0, 0, 0)


def test_the_stage_does_what_the_model_says_and_pays_once(server, tokenizer, tmp_path):
    settings = setting(server, tokenizer, window=500, cache=str(tmp_path))
    table = pa.table({"id": ["a", "b", "c"], "text": [TEXT, "ADVERT " * 20, TEXT]})
    for _ in range(2):
        found = ProX(writer=settings)(table)
        assert found["text"].to_pylist() == [CLEAN, CLEAN]
        # Two documents, one of them three windows; the third is equal to the first.
        assert len(server.bodies) == 2 + 3


def test_a_call_that_was_cut_is_counted_and_not_done(server, tokenizer):
    settings = setting(server, tokenizer, window=500, max_tokens=8)
    stage = ProX(writer=settings, level="chunk")
    measures = stage.measure(documents(TEXT, CLEAN))
    assert measures["cut_calls"].tolist() == [2, 0]
    assert measures["lines_removed"].tolist() == [0, 0]
    assert stage.refine(documents(TEXT)).to_pylist() == [TEXT]


def test_two_models(server, tokenizer):
    judge = {"openai": {"url": server.url, "model": "judge", "tokenizer": str(tokenizer)}}
    writer = read_writer(setting(server, tokenizer, document=judge))
    writer.document_programs(documents(TEXT))
    writer.chunk_programs(documents(TEXT))
    assert [one["model"] for one in server.bodies] == ["judge", "small"]
    assert "openai judge" in writer.identity() and "openai small" in writer.identity()
    assert len(writer.models()) == 1


def test_the_cost_is_that_of_the_prompts(server, tokenizer):
    writer = read_writer(setting(server, tokenizer, window=500, max_tokens=99))
    given = documents(TEXT, "short", "short", "")
    around = len(SYSTEM) + TEMPLATE_TOKENS
    cost = writer.document_cost(given)
    assert cost == (2, len(TEXT) + len("short") + 2 * around, 2 * DOCUMENT_ANSWER_TOKENS)
    prompts, tokens, most = writer.chunk_cost(given)
    assert (prompts, most) == (4, 4 * 99)
    lines = TEXT.split("\n")
    marks = 5 * (len(lines) + 1) + 4 * len("[doc]\n\n[/doc]") - 2
    assert tokens == len(TEXT) + len("short") + marks + 4 * around
    assert not server.bodies


def test_settings_come_back_as_they_were(tokenizer):
    writer = read_writer(setting("http://localhost:1/v1", tokenizer, window=7, long_lines="skip"))
    assert isinstance(writer, Generated)
    assert read_writer(writer.settings()) == writer
    stage = ProX(writer=writer.settings())
    assert ProX(**stage.model_dump(mode="json")) == stage


def test_one_huge_line_is_shown_in_part(server, tokenizer):
    writer = read_writer(setting(server, tokenizer))
    writer.chunk_programs(documents("word " * 20_000))
    (body,) = server.bodies
    assert 1400 < len(body["messages"][1]["content"]) < 1520


def test_mistakes_are_one_sentence(server, tokenizer):
    with pytest.raises(ValueError, match="the writer generator has no setting windw; did you mean"):
        read_writer(setting(server, tokenizer, windw=3))
    with pytest.raises(ValueError, match="there is no generator opnai; did you mean openai"):
        read_writer({"generator": {"opnai": {}}})
    small = read_writer(setting(server, tokenizer, max_prompt_tokens=20))
    with pytest.raises(TamisError, match=r"max_prompt_tokens = 20: .* has no room for a document"):
        small.document_programs(documents(TEXT))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(TamisError, match=f"The server {url} does not answer"):
        ProX(writer=setting(url, tokenizer)).measure(documents(TEXT))
