"""Read the unpacked packages: ``python -m benchmarks.corpus.build DIR`` fills DIR/crawl.

A line is {id, domain, license, url, lang, label, html or text}. Packages that were not fetched are
passed over.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.corpus.sources import Source, all_sources


def write_source(source: Source, folder: Path, out: Path) -> tuple[int, int]:
    """(documents, bytes of text or HTML) written to ``out``, which is removed when empty."""
    documents = size = 0
    with out.open("w", encoding="utf-8", errors="replace") as file:
        for page in source.read(folder):
            record = {
                "id": f"{source.name}/{documents}",
                "domain": source.domain,
                "license": source.license,
                "url": page.url,
                "lang": page.lang,
                "label": page.label,
                "html" if page.html else "text": page.body,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            documents += 1
            size += len(page.body.encode(errors="replace"))
    if not documents:
        out.unlink()
    return documents, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=Path, help="the folder that fetch.sh filled")
    folder = parser.parse_args().dir
    crawl = folder / "crawl"
    crawl.mkdir(exist_ok=True)
    for source in all_sources():
        out = crawl / f"{source.name.replace(':', '_')}.jsonl"
        try:
            documents, size = write_source(source, folder, out)
        except FileNotFoundError:
            out.unlink()
            continue
        if documents:
            print(f"{source.name}: {documents:,} documents, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
