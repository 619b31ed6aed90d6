"""Labels from a language model that can follow instructions: two ratings and three programs.

A document is rated twice, from 0 to 5: how much there is to learn from it, and how well its text
was extracted. It stays with 3 points or more of the first, or with 2 and 4 of the second. Of what
stays three questions ask for programs: menus at the top, addresses, and footers. The programs of
an answer that is not in the language, or that would remove too much, are left out; the others are
put together.

Source: Zhou et al. 2024 (arXiv:2409.17115), appendix A.1; the wording of the prompts is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tamis.filters.refine.chunks import WINDOW, Chunk, chunk_documents, fitting
from tamis.filters.refine.executor import execute
from tamis.filters.refine.line_features import KEEP, REMOVE
from tamis.filters.refine.line_programs import line_program, removed_lines
from tamis.filters.refine.program import parse
from tamis.generation.cache import cache_folder, generate_cached
from tamis.generation.generator import Generator, Prompt

DOCUMENT_TOKENS = 2000
"""Of a document, that are shown to be rated."""
RATING_TOKENS, PROGRAM_TOKENS = 300, 512
MOST_REMOVED = 0.5
"""Of the characters of a window, that one program may remove."""

EDUCATION = """\
How useful is the following extract of a web page for teaching, from primary school to the first \
years of university? Begin with 0 points and add them up:
- 1 point if it gives some information on a subject that is taught, even if there is advertising \
or other unrelated material beside it.
- 1 point more if it touches matters of education, though without order or in no depth, mixed with \
what does not belong to it.
- 1 point more if it could be used in teaching and introduces ideas that schools teach. It may be \
incomplete, or have some material that is not needed.
- 1 point more if it is coherent and clear, with hardly anything unrelated, like a chapter of a \
textbook or a tutorial with examples or exercises.
- 1 point more if it is outstanding: well suited to teach with as it stands, thorough, easy to \
follow, with nothing else in it.

The extract:
{text}

Say in 100 words or fewer why, and end with the line
Educational score: <total points>"""

FORMAT = """\
How well was the following text extracted from its web page? What it says does not matter, only \
its form. Begin with 0 points and add them up:
- 1 point if there is readable content to be found, though among tags, menus or broken lines.
- 1 point more if the most obvious remains of the page are gone and an order can be seen.
- 1 point more if it is mostly clean: a coherent text, with single addresses, dates or captions \
left in it.
- 1 point more if it is very clean: clear paragraphs, with almost nothing that is not content.
- 1 point more if it is flawless: the structure is kept, and nothing of the page is left.

The text:
{text}

Say in 100 words or fewer why, and end with the line
Extraction Quality Score: <total points>"""

_RULES = """\
The lines of the document have numbers in brackets, [000] for the first. Answer with a program in \
a ```python fence: only calls, one a line, and comments. If there is nothing to do, answer \
untouch_doc().
"""

MENUS = f"""\
Find the navigation at the beginning of the document: menus, links to other pages, buttons, search \
fields. Remove its lines with remove_lines(line_start=NUMBER, line_end=NUMBER), both included. A \
title is no navigation, and a line with other text stays.
{_RULES}
For this document
[doc]
[000]Home
[001]About us
[002]Search
[003]A day at the lake
[004]We left early in the morning.
[/doc]
the answer is
```python
# a menu
remove_lines(line_start=0, line_end=2)
```

The document:
{{text}}"""

ADDRESSES = f"""\
Find the web addresses in the document. A line that is nothing but an address is removed with \
remove_lines(line_start=NUMBER, line_end=NUMBER), both included. An address within other text is \
replaced by nothing: normalize(source_str="ADDRESS", target_str="").
{_RULES}
For this document
[doc]
[000]The tables are at https://lake.example/tables for those who want them.
[001]https://lake.example/next
[/doc]
the answer is
```python
normalize(source_str="https://lake.example/tables", target_str="")
remove_lines(line_start=1, line_end=1)
```

The document:
{{text}}"""

FOOTERS = f"""\
Find what is no content at the end of the document: copyright and contact lines, links to share or \
to log in, lists of related pages, references. Remove its lines with \
remove_lines(line_start=NUMBER, line_end=NUMBER), both included. The end of the text itself stays.
{_RULES}
For this document
[doc]
[000]So the day ended as it had begun.
[001]Share this page
[002]Copyright 2014 Lake Society
[/doc]
the answer is
```python
# sharing and copyright
remove_lines(line_start=1, line_end=2)
```

The document:
{{text}}"""

_EDUCATION_SCORE = re.compile(r"educational score\W*(\d)", re.IGNORECASE)
_FORMAT_SCORE = re.compile(r"extraction quality score\W*(\d)", re.IGNORECASE)
_FENCE = re.compile(r"```[a-z]*\n(.*?)(?:```|\Z)", re.DOTALL)


class Annotation(NamedTuple):
    """What the annotator says of a document."""

    program: str
    keep: bool
    education: int
    format: int
    refused: int
    """Programs that were left out, of the three for each window."""


def annotate(
    generator: Generator, texts: Sequence[str], cache: str | bool = True, window: int = WINDOW
) -> list[Annotation | None]:
    """Ratings and programs of documents; None for one whose ratings cannot be read.

    Args:
        generator: The language model.
        texts: The documents.
        cache: The folder of answers; True for that of the user, False to keep none.
        window: Tokens of the windows of numbered lines.

    Raises:
        TamisError: if the model is not there, or does not answer.
    """
    folder = cache_folder(cache)
    shown = [fitting(text, generator.count_tokens, DOCUMENT_TOKENS) for text in texts]
    prompts = [
        Prompt(rubric.replace("{text}", text)) for text in shown for rubric in (EDUCATION, FORMAT)
    ]
    answers = generate_cached(generator, prompts, RATING_TOKENS, folder)
    ratings = [
        (score(one.text, _EDUCATION_SCORE), score(two.text, _FORMAT_SCORE))
        for one, two in zip(answers[::2], answers[1::2], strict=True)
    ]
    kept = [
        at
        for at, (education, form) in enumerate(ratings)
        if education is not None and form is not None and keeps_rated(education, form)
    ]
    windows = chunk_documents([texts[at] for at in kept], generator.count_tokens, window)
    asked = [
        Prompt(question.replace("{text}", f"[doc]\n{chunk.text}\n[/doc]"))
        for several in windows
        for chunk in several
        for question in (MENUS, ADDRESSES, FOOTERS)
    ]
    written = iter(one.text for one in generate_cached(generator, asked, PROGRAM_TOKENS, folder))
    programs = {
        at: merge_programs(texts[at], several, written)
        for at, several in zip(kept, windows, strict=True)
    }
    found: list[Annotation | None] = []
    for at, (education, form) in enumerate(ratings):
        if education is None or form is None:
            found.append(None)
            continue
        program, refused = programs.get(at, ("", 0))
        found.append(Annotation(program, at in programs, education, form, refused))
    return found


def score(answer: str, pattern: re.Pattern[str]) -> int | None:
    """The points at the end of an answer; None if there are none from 0 to 5."""
    found = pattern.findall(answer)
    points = int(found[-1]) if found else -1
    return points if 0 <= points <= 5 else None


def keeps_rated(education: int, form: int) -> bool:
    """Whether a document of these points stays. With 2 and less than 4, which the paper does not
    speak of, it goes.
    """
    return education >= 3 or (education == 2 and form >= 4)


def merge_programs(text: str, windows: Sequence[Chunk], answers: Iterator[str]) -> tuple[str, int]:
    """One program of three answers for each window, and how many of them were left out: for an
    error, for lines outside of their window, or for removing more than ``MOST_REMOVED`` of it.
    """
    lines = text.split("\n")
    labels = [KEEP] * len(lines)
    sources: dict[int, list[str]] = {}
    refused = 0
    for window in windows:
        inside = set(range(window.first, window.last + 1))
        size = sum(len(lines[at]) for at in inside)
        for answer in (next(answers), next(answers), next(answers)):
            program = "\n".join(_FENCE.findall(answer)) or answer
            read = parse(program)
            removed = removed_lines(program, len(lines))
            gone = sum(len(lines[at]) for at in removed)
            if (
                *(read.errors, read.unknown, read.cut),
                not removed <= inside,
                gone > MOST_REMOVED * size,
            ) != ([], 0, 0, False, False):
                refused += 1
                continue
            for at in removed:
                labels[at] = REMOVE
            for source, target in (one for part in read.parts for one in part.replacements):
                for at in inside:
                    if not target and source in lines[at]:
                        sources.setdefault(at, []).append(source)
    program = line_program(labels, sources)
    return (program, refused) if execute(text, program) is not None else ("", refused)
