"""What was answered is never asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import PrivateAttr

from tamis.generation.cache import cache_folder, generate_cached, paid, spent
from tamis.generation.generator import Answer, Generator, Prompt
from tamis.generation.setting import read_generator
from tamis.pipeline.errors import TamisError
from tests.generation.servers import serving, upper


class Reverse(Generator):
    """Writes the prompt backwards, the last prompt first; ends with an error where it is told."""

    kind: ClassVar[str] = "reverse"

    model: str
    fails_at: int | None = None
    _asked: list[str] = PrivateAttr(default_factory=list)

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        found = dict(self.arriving(prompts, max_tokens, temperature))
        return [found[number] for number in range(len(prompts))]

    def arriving(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> Iterator[tuple[int, Answer]]:
        for number in reversed(range(len(prompts))):
            if number == self.fails_at:
                raise TamisError("no more")
            user = prompts[number].user
            self._asked.append(user)
            yield number, Answer(user[::-1][:max_tokens], len(user), 1, len(user) > max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one) for one in texts]

    def identity(self) -> str:
        return f"reverse {self.model}"


def prompts(*users: str) -> list[Prompt]:
    return [Prompt(one) for one in users]


def texts(answers: Sequence[Answer]) -> list[str]:
    return [one.text for one in answers]


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jsonl"))


def in_another_process(folder: Path, model: str, users: Sequence[str]) -> list[str]:
    """Its answers, and behind them what it asked."""
    code = (
        "import sys, json; from tests.generation.test_cache import *;"
        "folder, model, *users = sys.argv[1:]; one = Reverse(model=model);"
        "found = texts(generate_cached(one, prompts(*users), 9, folder));"
        "print(json.dumps([*found, *one._asked]))"
    )
    command = [sys.executable, "-c", code, str(folder), model, *users]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_only_what_is_missing_is_asked_and_equal_prompts_once(tmp_path):
    one = Reverse(model="a")
    answers = generate_cached(one, prompts("ab", "cd", "ab", "ef"), 9, tmp_path)
    assert texts(answers) == ["ba", "dc", "ba", "fe"]
    assert one._asked == ["ef", "cd", "ab"]
    again = generate_cached(one, prompts("ef", "gh", "ab"), 9, tmp_path)
    assert texts(again) == ["fe", "hg", "ba"]
    assert one._asked == ["ef", "cd", "ab", "gh"]
    assert answers[0] == Answer("ba", 2, 1, cut=False) == again[2]
    assert spent(one) == (7, 4, 8, 4, 0)
    assert spent(one).facts()["known"] == pytest.approx(3 / 7, abs=1e-4)
    assert paid(one, tmp_path) == (4, 8, 4, 0)


def test_an_answer_is_that_of_its_question(tmp_path):
    asked = [
        generate_cached(Reverse(model="b"), [Prompt("abc", "s")], 9, tmp_path),
        generate_cached(Reverse(model="b"), [Prompt("abc")], 9, tmp_path),
        generate_cached(Reverse(model="b"), [Prompt("abc")], 2, tmp_path),
        generate_cached(Reverse(model="b"), [Prompt("abc")], 9, tmp_path, temperature=0.5),
        generate_cached(Reverse(model="b"), [Prompt("", "abc")], 9, tmp_path),
        generate_cached(Reverse(model="c"), [Prompt("abc")], 9, tmp_path),
    ]
    assert texts(one for (one,) in asked) == ["cba", "cba", "cb", "cba", "", "cba"]
    assert paid(Reverse(model="b"), tmp_path).answers == 5
    assert paid(Reverse(model="b"), tmp_path).cut == 1
    assert paid(Reverse(model="c"), tmp_path).answers == 1
    about = sorted(json.loads(one.read_text())["identity"] for one in tmp_path.glob("*/*.json"))
    assert about == ["reverse b", "reverse c"]


def test_other_processes_see_what_was_answered(tmp_path):
    odd = 'a" \n\t \u2028 \U0001f600'
    assert in_another_process(tmp_path, "d", ["ab", odd]) == ["ba", odd[::-1], odd, "ab"]
    one = Reverse(model="d")
    assert texts(generate_cached(one, prompts(odd, "ab"), 9, tmp_path)) == [odd[::-1][:9], "ba"]


def test_answers_that_arrive_while_this_process_lives_are_seen(tmp_path):
    one = Reverse(model="e")
    generate_cached(one, prompts("ab"), 9, tmp_path)
    in_another_process(tmp_path, "e", ["cd", "ab"])
    assert len(kept(tmp_path)) == 2
    assert texts(generate_cached(one, prompts("ab", "cd"), 9, tmp_path)) == ["ba", "dc"]
    assert one._asked == ["ab"]


def test_a_torn_last_line_counts_for_nothing(tmp_path):
    generate_cached(Reverse(model="f"), prompts("ab", "cd"), 9, tmp_path / "whole")
    (path,) = kept(tmp_path / "whole")
    content = path.read_bytes()
    second = content.index(b"\n") + 1
    for end in range(second, len(content)):
        torn = tmp_path / f"{end}" / path.parent.name
        torn.mkdir(parents=True)
        (torn / path.name).write_bytes(content[:end])
        one = Reverse(model="f")
        assert texts(generate_cached(one, prompts("ab", "cd"), 9, torn.parent)) == ["ba", "dc"]
        assert one._asked == ["ab"]


def test_damaged_lines_are_asked_again(tmp_path):
    one = Reverse(model="g")
    generate_cached(one, prompts("ab", "cd", "ef"), 9, tmp_path)
    (path,) = kept(tmp_path)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.with_name("other.jsonl").write_bytes(
        first + second.replace(b'"text"', b'"txet"') + b"\0\0\0\n" + third.replace(b"}", b"")
    )
    path.unlink()
    again = Reverse(model="g")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert texts(generate_cached(again, prompts("ab", "cd", "ef"), 9, moved)) == ["ba", "dc", "fe"]
    assert again._asked == ["cd", "ab"]


def test_what_came_before_an_error_is_kept(tmp_path):
    failing = Reverse(model="h", fails_at=1)
    with pytest.raises(TamisError, match="no more"):
        generate_cached(failing, prompts("ab", "cd", "ef"), 9, tmp_path)
    assert failing._asked == ["ef"]
    one = Reverse(model="h")
    assert texts(generate_cached(one, prompts("ab", "cd", "ef"), 9, tmp_path)) == ["ba", "dc", "fe"]
    assert one._asked == ["cd", "ab"]


def test_threads_share_a_folder(tmp_path):
    generators = [Reverse(model="i") for _ in range(4)]
    users = [f"{number}x" for number in range(200)]
    found: list[list[str]] = [[] for _ in generators]

    def work(number: int) -> None:
        for begin in range(0, 200, 20):
            asked = prompts(*users[begin : begin + 20])
            found[number] += texts(generate_cached(generators[number], asked, 9, tmp_path))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [[f"x{user[:-1][::-1]}" for user in users]] * 4
    fresh = Reverse(model="i")
    generate_cached(fresh, prompts(*users), 9, tmp_path)
    assert fresh._asked == []


def test_nothing_is_kept_without_a_folder():
    one = Reverse(model="j")
    for _ in range(2):
        assert texts(generate_cached(one, prompts("ab", "ab"), 9, None)) == ["ba", "ba"]
    assert one._asked == ["ab", "ab"]
    assert generate_cached(one, [], 9, None) == []


def test_progress_is_told_behind_every_answer(tmp_path):
    seen = []
    one = Reverse(model="k")
    generate_cached(one, prompts("ab", "cd", "ab"), 1, tmp_path, progress=seen.append)
    assert [(now.prompts, now.asked, now.tokens, now.cut) for now in seen] == [
        (3, 1, 1, 1), (3, 2, 2, 2),
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TamisError, match=r"cannot write .*file"):
        generate_cached(Reverse(model="l"), prompts("ab"), 9, tmp_path / "file")


def test_where_answers_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMIS_CACHE", str(tmp_path))
    assert cache_folder(True) == tmp_path / "answers"
    assert cache_folder(False) is None
    assert cache_folder("~/here") == Path("~/here").expanduser()
    monkeypatch.delenv("TAMIS_CACHE")
    found = cache_folder(True)
    assert found is not None and found.parts[-2:] == ("tamis", "answers")


def test_a_killed_process_loses_only_what_was_under_way(tmp_path):
    pytest.importorskip("httpx")
    code = "import sys; from tests.generation.test_cache import *; ask(*sys.argv[1:])"
    enough, done = threading.Event(), threading.Event()
    answered: list[str] = []
    left = iter(range(20))

    def until_killed(handler, body) -> None:
        if next(left, None) is None:
            enough.set()
            done.wait(60)
            return
        answered.append(body["messages"][0]["content"])
        upper(handler, body)

    with serving(until_killed) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        process = subprocess.Popen(command)
        assert enough.wait(60)
        lines = 0
        while lines < 20:
            lines = sum(one.read_bytes().count(b"\n") for one in kept(tmp_path))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done.set()
        server.otherwise = upper
        first = len(server.bodies)
        ask(server.url, str(tmp_path))
        later = Counter(one["messages"][0]["content"] for one in server.bodies[first:])
    assert set(later) == {str(number) for number in range(60)} - set(answered)
    assert set(later.values()) == {1}


def ask(url: str, folder: str) -> None:
    settings = {"url": url, "model": "small", "concurrency": 4, "pause": 0.01}
    users = [str(number) for number in range(60)]
    found = generate_cached(read_generator({"openai": settings}), prompts(*users), 9, folder)
    assert texts(found) == users
