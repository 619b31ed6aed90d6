"""Draw a corpus: ``python -m benchmarks.corpus.sample CRAWL OUT.jsonl {tiny,bench,large}``.

The draw is a hash of the id against a quota in megabytes for each source, so it does not depend on
order or on the other sources. HTML becomes the text of the whole page, menus and footers included:
cleaning is what the corpus is for. A line is {id, url, source, lang, license, text}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resiliparse.extract.html2text import extract_plain_text

# Megabytes (as HTML) of each source whose name matches. "tiny" holds only text that may be passed
# on.
QUOTAS: dict[str, dict[str, float]] = {
    "tiny": {
        "sqlite3-doc": 1.2,
        "postgresql-doc-15": 0.7,
        r"python3\.11-doc": 2.5,
        "libreoffice-help-(de|fr|es|ja|zh-cn|ru)": 0.27,
        "r-cran-janeaustenr": 0.5,
        "sword-text-(web|sparv)": 0.2,
        "npm_sotu": 0.35,
        "npm_moby": 0.2,
        "npm_spdx": 0.25,
        "npm_poetry": 0.15,
        "dict-devil": 0.1,
    },
    "bench": {
        r"python3\.11-doc": 25,
        "postgresql-doc-15": 16,
        "sqlite3-doc": 15,
        "libreoffice-help-(en-us|de|fr|es|ja|zh-cn|ru)": 6,
        "gnome-user-docs": 15,
        "anarchism": 6,
        "manpages.*": 3,
        "fortunes.*": 1.5,
        "dict-(gcide|foldoc)": 4,
        "sword-.*": 4,
        "r-cran-janeaustenr": 4,
        "npm_(sotu|moby)": 6,
        "npm_spam": 20,
        "npm_spdx": 5,
        "py_(boolq|quac|xsum|legal|pubmed|narr)": 8,
        "py_enwiki": 4,
    },
    "large": {".*": 1e6},
}
LONGEST_TINY_LINE = 120_000


def quota(preset: str, source: str) -> float:
    """Bytes wanted of a source; 0 when it is no part of the preset."""
    for pattern, megabytes in QUOTAS[preset].items():
        if re.fullmatch(pattern, source):
            return megabytes * 1e6
    return 0.0


def drawn(id: str, fraction: float) -> bool:
    """Whether a document is among the given fraction: 32 bits of the MD5 of its id decide."""
    digest = hashlib.md5(id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 <= fraction


def document(page: dict[str, Any]) -> dict[str, Any]:
    """A page of the crawl as {id, url, source, lang, license, text}."""
    text = page["text"] if "text" in page else extract_plain_text(page["html"])
    return {
        "id": page["id"],
        "url": page["url"],
        "source": page["domain"],
        "lang": page["lang"],
        "license": page["license"],
        "text": text,
    }


def sample(crawl: Path, preset: str) -> Iterator[dict[str, Any]]:
    """The documents of a preset, in the order of the sources' file names."""
    for path in sorted(crawl.glob("*.jsonl"), key=str):
        wanted = quota(preset, path.stem)
        if not wanted:
            continue
        fraction = wanted / path.stat().st_size
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if preset == "tiny" and len(line) > LONGEST_TINY_LINE:
                    continue
                page = json.loads(line)
                if fraction >= 1 or drawn(page["id"], fraction):
                    yield document(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crawl", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("preset", choices=tuple(QUOTAS))
    arguments = parser.parse_args()
    documents = size = 0
    unfinished = arguments.out.with_name(arguments.out.name + ".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for record in sample(arguments.crawl, arguments.preset):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            documents += 1
            size += len(record["text"].encode())
    unfinished.replace(arguments.out)
    print(f"{arguments.out}: {documents:,} documents, {size / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
