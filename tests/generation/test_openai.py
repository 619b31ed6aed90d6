"""What becomes of the answers, and the troubles, of a server."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tamis.generation.cache import generate_cached
from tamis.generation.generator import Answer, Prompt
from tamis.generation.setting import read_generator
from tamis.pipeline.errors import RecipeError, TamisError
from tests.generation.servers import Server, reply, serving, upper

pytest.importorskip("httpx")


@pytest.fixture
def server():
    with serving() as one:
        yield one


def make(server: Server | str, **settings):
    url = server if isinstance(server, str) else server.url
    return read_generator(
        {"openai": {"url": url, "model": "small", "pause": 0.001, "retries": 3, **settings}}
    )


def status(code: int, message: str = "", **headers: str):
    return lambda handler, _: reply(handler, code, {"error": {"message": message}}, **headers)


def hang_up(handler, _) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def half_an_answer(handler, _) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    hang_up(handler, _)


def test_answers_come_in_the_order_of_prompts(server):
    prompts = [Prompt(f"a{number} b c", "Be short.") for number in range(40)]
    answers = make(server, concurrency=8).generate(prompts, 2)
    assert answers == [Answer(f"A{number} B", 3, 2, cut=True) for number in range(40)]
    assert make(server).generate([Prompt("x")], 2) == [Answer("X", 1, 1, cut=False)]
    assert len(server.bodies) == 41
    assert server.bodies[-1] == {
        "model": "small", "temperature": 0.0, "max_tokens": 2,
        "messages": [{"role": "user", "content": "x"}],
    }  # fmt: skip


def test_as_many_requests_as_allowed_are_under_way():
    together = threading.Barrier(4, timeout=20)

    def waits(handler, body) -> None:
        together.wait()
        upper(handler, body)

    with serving(waits) as server:
        make(server, concurrency=4).generate([Prompt(str(number)) for number in range(8)], 1)
        assert server.most_at_once == 4


def test_requests_say_what_the_settings_say(server):
    server.names = []
    generator = make(
        server, limit="max_completion_tokens", seed=5, options={"top_p": 0.5, "max_tokens": 3}
    )
    generator.generate([Prompt("u", "s")], 9, 0.3)
    assert server.bodies[-1] == {
        "model": "small", "temperature": 0.3, "max_completion_tokens": 9, "max_tokens": 3,
        "seed": 5, "top_p": 0.5,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    }  # fmt: skip
    (answer,) = make(server, api="completions").generate([Prompt("u", "s")], 9)
    assert server.bodies[-1]["prompt"] == "s\n\nu\n\n"
    assert answer.text == "S U"
    assert server.paths == {"/v1/chat/completions": 1, "/v1/completions": 1}


@pytest.mark.parametrize(
    "trouble", [status(429), status(500), status(503), hang_up, half_an_answer]
)
def test_what_may_pass_is_tried_again(server, trouble):
    server.script = [upper, trouble, trouble, trouble]
    answers = make(server, concurrency=1).generate([Prompt("a"), Prompt("b")], 4)
    assert [one.text for one in answers] == ["A", "B"]
    assert [one["messages"][0]["content"] for one in server.bodies] == ["a", *"bbbb"]


def test_a_server_that_is_overrun_says_how_long_to_wait(server):
    server.script = [status(429, retry_after="0.3")]
    begin = time.monotonic()
    make(server).generate([Prompt("a")], 4)
    assert time.monotonic() - begin > 0.25


def test_answers_under_way_arrive_though_another_prompt_fails():
    refused = threading.Event()

    def answers(handler, body) -> None:
        if body["messages"][0]["content"] == "bad":
            reply(handler, 422, {"detail": "this is bad"})
            refused.set()
            return
        assert refused.wait(20)
        upper(handler, body)

    with serving(answers) as server:
        found = {}
        with pytest.raises(TamisError, match="refuses a prompt: 422 this is bad"):
            for number, answer in make(server, concurrency=2).arriving(
                [Prompt("good"), Prompt("bad"), *[Prompt("later")] * 50], 4
            ):
                found[number] = answer.text
        assert found[0] == "GOOD"
        assert len(server.bodies) < 5


def test_a_prompt_that_is_too_long_is_answered_with_nothing(server):
    server.script = [status(400, "This model's maximum context length is 8 tokens.")]
    assert make(server).generate([Prompt("a")], 4) == [Answer("", 0, 0, cut=True)]


@pytest.mark.parametrize(
    "says",
    [
        "the request exceeds the available context size, try increasing it",
        "Input tokens exceed the configured limit: context_length_exceeded",
    ],
)
def test_what_did_not_fit_is_not_kept(server, tmp_path, says):
    server.script = [status(400, says)]
    for text in ("", "A", "A"):
        (answer,) = generate_cached(make(server), [Prompt("a")], 4, tmp_path)
        assert answer.text == text
    assert len(server.bodies) == 2


def test_a_limit_that_the_server_does_not_take_is_a_mistake(server):
    server.script = [status(400, "max_tokens exceeds the maximum of 4096")]
    with pytest.raises(TamisError, match="refuses a prompt: 400 max_tokens exceeds"):
        make(server).generate([Prompt("a")], 4)


def test_an_answer_without_text_and_usage(server):
    content = {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}
    server.script = [lambda handler, _: reply(handler, 200, content)]
    assert make(server).generate([Prompt("a")], 4) == [Answer("", 0, 0)]


def test_a_server_that_is_not_there_is_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(TamisError, match=rf"The server {url} does not answer: .*refused.*2 times"):
        make(url, retries=100).generate([Prompt("a")], 4)


def test_a_server_that_is_too_slow_is_one_sentence():
    done = threading.Event()
    with serving(lambda *_: done.wait(20)) as server:
        with pytest.raises(TamisError, match="does not answer: timed out"):
            make(server, timeout=0.1, retries=1).generate([Prompt("a")], 4)
        done.set()


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (status(500, "no chat template"), "says 500 no chat template; a model without a chat tem"),
        (status(429, "slow down."), r"says 429 slow down \(asked 4 times\)\.$"),
        (status(404), "There is no chat at .*: as a rule the address ends with /v1"),
        (status(401, "key sk-1234 is wrong"), "wants a key: name the environment variable"),
        (lambda one, _: reply(one, 200, b"<html>hello"), "does not speak OpenAI's protocol: '<htm"),
        (lambda one, _: reply(one, 200, {"choices": []}), "does not speak OpenAI's protocol"),
        (lambda one, _: reply(one, 302, b"", Location="/x"), "refuses a prompt: 302"),
    ],
)
def test_what_does_not_pass_is_one_sentence(trouble, sentence):
    with serving(trouble) as server, pytest.raises(TamisError, match=sentence):
        make(server).generate([Prompt("a")], 4)


def test_half_a_character_is_no_text(server, tmp_path):
    content = {"choices": [{"message": {"content": "a\ud83d"}}]}
    server.script = [lambda handler, _: reply(handler, 200, content)]
    (answer,) = generate_cached(make(server), [Prompt("a")], 4, tmp_path)
    assert answer.text == "a?"


def test_another_name_of_a_model_is_told(server):
    server.script = [status(404)]
    with pytest.raises(TamisError, match=r"has no model smal; did you mean small\?"):
        make(server, model="smal").generate([Prompt("a")], 4)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(server, monkeypatch):
    generator = make(server, key_variable="OUR_KEY")
    with pytest.raises(RecipeError, match=r"the environment variable OUR_KEY, .* is not set"):
        generator.models()
    monkeypatch.setenv("OUR_KEY", " sk-secret\n")
    generator.generate([Prompt("a")], 4)
    assert (
        server.headers[-1][
            "authorization" if "authorization" in server.headers[-1] else "Authorization"
        ]
        == "Bearer sk-secret"
    )
    assert "secret" not in f"{generator!r} {generator.settings()} {generator.identity()}"
    server.script = [status(403, "sk-secret is no good")]
    with pytest.raises(TamisError, match="wants another key than the one in OUR_KEY") as error:
        generator.generate([Prompt("a")], 4)
    assert "secret" not in str(error.value)
    monkeypatch.setenv("OUR_KEY", "sk\nsecret")
    with pytest.raises(RecipeError, match="OUR_KEY holds no key") as error:
        generator.generate([Prompt("a")], 4)
    assert "secret" not in str(error.value)


def test_tokens_are_counted_by_the_server_that_can(server, monkeypatch):
    from tamis.generation import counting

    monkeypatch.setattr(counting, "_said", set())
    generator = make(server)
    with pytest.warns(UserWarning, match="Tokens are estimated, one for each 3 bytes"):
        assert generator.count_tokens(["", "abc", "abcd", "ééé"]) == [0, 1, 2, 2]
    assert server.paths["/tokenize"] == 1
    server.tokenize = lambda one, body: reply(one, 200, {"count": len(body["prompt"])})
    assert generator.count_tokens(["a", "bb", ""]) == [1, 2, 0]
    server.tokenize = lambda one, body: reply(
        one, 200, {"tokens": list(range(len(body["content"])))}
    )
    assert generator.count_tokens(["a", "bb", ""]) == [1, 2, 0]


def test_tokens_are_counted_by_a_tokenizer(server, model_folder, tmp_path):
    generator = make(server, tokenizer=str(model_folder))
    assert generator.count_tokens(["abc", "", "é"]) == [3, 0, 2]
    assert generator.models() == (model_folder / "tokenizer.json",)
    assert not server.paths
    with pytest.raises(RecipeError, match=r"there is no tokenizer .*nowhere"):
        make(server, tokenizer=str(tmp_path / "nowhere")).models()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TamisError, match=r"the tokenizer .*tokenizer\.json cannot be read"):
        make(server, tokenizer=str(tmp_path)).count_tokens(["a"])


def test_the_identity_is_the_model_and_how_it_is_asked():
    base = make("http://a/v1")
    assert base.identity() == make("https://b:99/v1/", concurrency=3, retries=0).identity()
    others = [
        make("http://a/v1", **one)
        for one in (
            {"revision": "2"},
            {"api": "completions"},
            {"options": {"top_p": 1}},
            {"seed": 1},
        )
    ]
    assert len({one.identity() for one in (base, *others)}) == 5
