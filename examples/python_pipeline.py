"""The same as a recipe, in Python: python examples/python_pipeline.py INPUT OUTPUT"""

from __future__ import annotations

import sys

import tamis


def main(source: str, output: str) -> None:
    """Curate the documents of ``source`` into the folder ``output``."""
    stages = [tamis.GopherRepetition(), tamis.GopherQuality(min_words=50), tamis.MinHash()]
    run = tamis.Pipeline(tamis.read(source), stages, tamis.write(output)).run(workers=2)
    print(run.counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
