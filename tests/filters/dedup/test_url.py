"""Canonical URLs and deduplication by them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.filters.dedup import deduplicate
from tamis.filters.dedup.url import UrlDedup, canonical_url
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tests.filters.dedup.conftest import make_documents

SAME = [
    # RFC 3986, section 6.2.2 and 6.2.3
    ("HTTP://www.Example.COM/", "https://example.com/"),
    ("http://example.com", "https://example.com/"),
    ("http://example.com:/", "https://example.com/"),
    ("http://example.com:80/", "https://example.com/"),
    ("https://example.com:443/a", "https://example.com/a"),
    ("https://example.com:8080/a", "https://example.com:8080/a"),
    ("ftp://example.com:21/a", "ftp://example.com/a"),
    ("https://example.com/a/./b/../b/%63/%7bfoo%7d", "https://example.com/a/b/c/%7Bfoo%7D"),
    ("https://example.com/../../a/..", "https://example.com/"),
    ("https://example.com/%7Esmith/%2F", "https://example.com/~smith/%2F"),
    ("https://example.com/caf\u00e9 au lait", "https://example.com/caf%C3%A9%20au%20lait"),
    ("https://example.com/caf%c3%a9%20au%20lait", "https://example.com/caf%C3%A9%20au%20lait"),
    ("https://example.com/100%", "https://example.com/100%25"),
    ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
    ("https://Me:Secret@Example.com/", "https://Me:Secret@example.com/"),
    # the web
    (" https://example.com/a#part ", "https://example.com/a"),
    ("https://example.com/#!/page", "https://example.com/#!/page"),
    ("https://example.com./a//", "https://example.com/a"),
    ("https://example.com/a/?", "https://example.com/a"),
    ("https://example.com/?b=2&a=1&b=1&&c", "https://example.com/?a=1&b=2&b=1&c"),
    ("https://example.com/?utm_source=x&id=7&FBCLID=y", "https://example.com/?id=7"),
    ("https://example.com/?fbclid", "https://example.com/"),
    ("https://example.com/a;jsessionid=0A1B/?x=1", "https://example.com/a?x=1"),
    ("https://example.com/a;jsessionid=0A1B/b", "https://example.com/a;jsessionid=0A1B/b"),
    ("https://www.com/", "https://www.com/"),
    # what is no URL with a host
    ("example.com/a/", "example.com/a/"),
    ("mailto:me@example.com", "mailto:me@example.com"),
    ("http://[example.com/", "http://[example.com/"),
    ("http://example.com:port/", "http://example.com:port/"),
    ("http://./", "http://./"),
]


@pytest.mark.parametrize(("url", "canonical"), SAME)
def test_known_answers(url, canonical):
    assert canonical_url(url) == canonical
    assert canonical_url(canonical) == canonical


def test_different_pages_stay_different():
    pages = """
        https://example.com/ https://example.com/A https://example.com/a https://example.com/a?b
        https://example.com/a?b= https://example.com/a?b=1 https://example.com/a%2Fb
        https://example.com/a/b https://example.com:8443/a https://shop.example.com/a
        https://example.com/a?b=%26c=1 https://example.com/a?b=&c=1 https://example.com/a?ref=1
        https://example.com/a+b https://example.com/a%20b
    """.split()
    assert len({canonical_url(page) for page in pages}) == len(pages)


characters = st.characters(codec="utf-8") | st.sampled_from("abAB./:?#[]@!$&'()*+,;=%%%~- \t\n4f")
prefix = st.sampled_from(["", "http://", "https://www.a.org/", "HTTP://a.b:80", "//", "https://a?"])


@settings(deadline=None, max_examples=500)
@given(prefix, st.text(characters))
def test_canonical_urls_stay_as_they_are(start, rest):
    once = canonical_url(start + rest)
    assert canonical_url(once) == once


def test_www_and_http_and_parameters_can_count():
    url = "http://www.example.com/?utm_source=x&Page=2"
    stage = UrlDedup(ignore_www=False, ignore_http=False, ignore_parameters=("page",))
    assert stage.canonical(url) == "http://www.example.com/?utm_source=x"
    assert UrlDedup().canonical(url) == "https://example.com/?Page=2"


URLS = [
    "http://a.org/x/",
    None,
    "https://www.a.org/x#top",
    "",
    None,
    "https://a.org/X",
    " ",
    "n/a",
    "n/a",
]


def test_the_first_document_of_a_url_is_kept_and_those_without_one_are():
    table = pa.table({"text": list("abcdefghi"), "url": URLS, "n": range(9)})
    assert deduplicate(table, UrlDedup())["n"].to_pylist() == [0, 1, 3, 4, 5, 6, 7]
    assert deduplicate(table.slice(0, 0), UrlDedup()).num_rows == 0


def test_the_longest_document_of_a_url_is_kept_when_asked():
    table = pa.table({"text": ["short", "the longest", "longer"], "url": ["http://a.org/"] * 3})
    assert deduplicate(table, UrlDedup(keep="longest"))["text"].to_pylist() == ["the longest"]


def test_the_best_document_of_a_url_is_kept_when_asked():
    table = pa.table({"text": list("abc"), "url": ["http://a.org/"] * 3, "score": [0.1, 0.9, 0.5]})
    assert deduplicate(table, UrlDedup(keep="best", by="score"))["text"].to_pylist() == ["b"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_the_column_may_be_of_any_string_type(kind):
    documents = make_documents(list("abcdefghi"))
    batch = documents.batch.append_column("url", pa.array(URLS, pa.string()).cast(kind))
    summary = UrlDedup().summarize(Documents(batch))
    plain = documents.batch.append_column("url", pa.array(URLS, pa.string()))
    assert summary.equals(UrlDedup().summarize(Documents(plain)))
    assert summary["has_url"].to_pylist() == [
        True,
        False,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]


def test_mistakes_are_one_sentence():
    with pytest.raises(TamisError, match="needs the column url"):
        UrlDedup().summarize(make_documents(["a"]))
    with pytest.raises(TamisError, match="Stage url_dedup needs the column url"):
        deduplicate(pa.table({"text": ["a"]}), UrlDedup())
    batch = make_documents(["a"]).batch.append_column("url", pa.array([1.5]))
    with pytest.raises(TamisError, match="'url' holds double, not strings"):
        UrlDedup().summarize(Documents(batch))


def test_in_a_run_the_ledger_names_the_page_that_was_kept(tmp_path):
    lines = [
        f'{{"id": "d{i}", "text": "text {i}", "url": "http://a.org/{i % 3}"}}' for i in range(5)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = [
        tamis.read(str(tmp_path / "in.jsonl")),
        [UrlDedup()],
        tamis.write(str(tmp_path / "out")),
    ]
    run = tamis.Pipeline(*recipe).run()
    ledger = pq.read_table(f"{run.path}/ledger")
    assert ledger["id"].to_pylist() == ["d3", "d4"]
    assert ledger["detail"].to_pylist() == ["d0", "d1"]
    assert ledger["stage"].to_pylist() == ["url_dedup"] * 2
