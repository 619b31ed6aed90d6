"""Make the corpus that ships with tamis: ``python -m benchmarks.corpus.make_demo TINY OUT``.

The documents of the "tiny" preset, and among them 90 that were planted, so that a filter's work can
be checked against the truth. ``planted`` is null for real documents, else ``<what>:<id of the
document it was made from>``:

    exact_copy    40   the same text
    near_copy     40   2-8 % of the words replaced, in runs of 4-8 words (the way sentences get
    edited) repetition     5   most of the document is one of its own lines again and again
    boilerplate    5   most of the document is menus, cookie notices and placeholder text

A planted document always comes after the one it was made from.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

SEED = 20
EXACT_COPIES = 40
NEAR_COPIES = 40
REPETITIONS = 5
BOILERPLATES = 5
WORD = re.compile(r"\S+")
# Languages that put spaces between words, so that "a share of the words" means something.
SPACED = ("en", "es", "fr", "de", "ru")
# Licence texts may only be passed on unchanged, and a changed Bible may not keep its name.
UNCHANGED = ("licences/legal", "religion")
NOTICES = (
    "Home | About us | Products | Support | Contact | Log in",
    "Skip to main content",
    "We use cookies to give you the best experience. Read our cookie policy.",
    "Please enable JavaScript to view this page.",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor",
    "- Share on social media",
    "- Print this page",
    "Subscribe to our newsletter today ...",
    "Read more ...",
    "Terms of use | Privacy policy | Imprint",
    "$(function() { $('#menu').show(); });",
)


def near_copy(text: str, rng: random.Random) -> str:
    """The text with 2-8 % of its words replaced by others of its words; white space stays."""
    spans = [match.span() for match in WORD.finditer(text)]
    vocabulary = sorted({text[start:end] for start, end in spans})
    wanted = max(1, round(len(spans) * rng.uniform(0.02, 0.08)))
    edited: set[int] = set()
    while len(edited) < wanted:
        length = min(rng.randint(4, 8), wanted - len(edited))
        first = rng.randrange(len(spans) - length)
        edited.update(range(first, first + length))
    pieces = []
    at = 0
    for index, (start, end) in enumerate(spans):
        word = text[start:end]
        if index in edited:
            word = rng.choice([other for other in vocabulary if other != word])
        pieces += [text[at:start], word]
        at = end
    return "".join(pieces) + text[at:]


def repetition(text: str, rng: random.Random) -> str:
    """The first 1,000 characters of a text, then one of its long lines 30 times."""
    line = rng.choice([line for line in text.split("\n") if len(line) >= 40])
    return text[:1000] + "\n" + "\n".join([line] * 30)


def boilerplate(text: str, rng: random.Random) -> str:
    """The first 300 characters of a text among 60 lines of menus and notices."""
    lines = [rng.choice(NOTICES) for _ in range(60)]
    return "\n".join([*lines[:20], text[:300], *lines[20:]])


def plant(
    what: str, edit: Callable[[str], str], originals: Iterable[Record], first: int
) -> list[Record]:
    """Edited copies of the originals, with ids and URLs of their own numbered from ``first``."""
    return [
        {
            **original,
            "id": f"planted/{first + offset}",
            "url": f"https://mirror.test/{first + offset}",
            "text": edit(original["text"]),
            "planted": f"{what}:{original['id']}",
        }
        for offset, original in enumerate(originals)
    ]


def planted_records(records: list[Record], rng: random.Random) -> list[Record]:
    """The 90 planted documents; a near and an exact copy never have the same original."""
    small = [record for record in records if 300 <= len(record["text"]) <= 6000]
    editable = [record for record in records if record["source"] not in UNCHANGED]
    spaced = [
        record
        for record in editable
        if len(record["text"]) <= 6000
        and record["lang"] in SPACED
        and len(WORD.findall(record["text"])) >= 100
    ]
    near = rng.sample(spaced, NEAR_COPIES)
    taken = {record["id"] for record in near}
    exact = rng.sample([record for record in small if record["id"] not in taken], EXACT_COPIES)
    long = [
        record
        for record in editable
        if record["lang"] == "en"
        and len(record["text"]) > 2000
        and any(len(line) >= 40 for line in record["text"].split("\n"))
    ]
    damaged = rng.sample(long, REPETITIONS + BOILERPLATES)
    planted = plant("exact_copy", lambda text: text, exact, 0)
    planted += plant("near_copy", lambda text: near_copy(text, rng), near, len(planted))
    repeated = damaged[:REPETITIONS]
    planted += plant("repetition", lambda text: repetition(text, rng), repeated, len(planted))
    spoilt = damaged[REPETITIONS:]
    planted += plant("boilerplate", lambda text: boilerplate(text, rng), spoilt, len(planted))
    return planted


def demo_corpus(records: list[Record]) -> list[Record]:
    """The real records, and each planted one at a random place behind its original."""
    rng = random.Random(SEED)
    place = {record["id"]: float(index) for index, record in enumerate(records)}
    ordered = [(place[record["id"]], {**record, "planted": None}) for record in records]
    for record in planted_records(records, rng):
        original = record["planted"].split(":", 1)[1]
        ordered.append((rng.uniform(place[original], len(records)), record))
    return [record for _, record in sorted(ordered, key=lambda pair: pair[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiny", type=Path, help="the corpus of `fetch.sh DIR tiny`")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with arguments.tiny.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    corpus = demo_corpus(records)
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in corpus)
    # No time stamp and no file name in the header: the same input gives the same bytes.
    arguments.out.write_bytes(gzip.compress(content.encode(), compresslevel=9, mtime=0))
    print(f"{arguments.out}: {len(corpus)} documents, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
