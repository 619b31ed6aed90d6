"""Duplicates by address: documents whose URLs lead to the same page.

``canonical_url`` removes what does not change the page. The first group of rules is the
normalisation of RFC 3986, sections 6.2.2 and 6.2.3; the second is what nearly always holds on the
web:

1. Scheme and host in lower case; no default port; escapes in capitals, and none for characters that
   need none (``%7E`` is ``~``); other characters escaped, as UTF-8; dot segments resolved; an empty
   path is ``/``.
2. No fragment, except ``#!...``, which names a page; no slash at the end of the path; no tracking
   and session parameters (``IGNORED_PARAMETERS``), the others ordered by name; no dot behind the
   host; https for http and no ``www.``, unless these two are switched off.
"""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np
import pyarrow as pa
import xxhash

from tamis.filters.dedup.components import Components
from tamis.filters.dedup.duplicates import Deduplication, read_column
from tamis.filters.dedup.types import Int64
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Summaries

URL = "url"

IGNORED_PARAMETERS = tuple(
    """
    utm_* mtm_* matomo_* pk_* piwik_* hsa_* vero_* oly_*
    _ga _gl _hsenc _hsmi __hssc __hstc __hsfp hsctatracking _openstat
    dclid epik fbclid gad_source gbraid gclid gclsrc igsh igshid li_fat_id mc_cid mc_eid mkt_tok
    ml_subscriber ml_subscriber_hash msclkid rb_clickid s_kwcid srsltid ttclid twclid wbraid
    wickedid yclid ysclid
    aspsessionid* jsessionid phpsessid
    """.split()
)
"""Parameters of campaigns, clicks and sessions: they say how a reader came, not what the page is.

In lower case; ``*`` at the end stands for any rest.
"""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = ":/?#[]@!$&'()*+,;="
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOTHING_TO_ESCAPE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]*")


class UrlDedup(Deduplication):
    """Drop documents whose canonical URL (see the module) occurred before.

    A document without a URL (null, or white space) is nobody's duplicate. What is not a URL with a
    host is compared as it stands. Canonical URLs are the same when their 128-bit XXH3 hashes are.
    """

    kind: ClassVar[str] = "url_dedup"
    detail_means: ClassVar[str] = "same URL as"

    ignore_www: bool = True
    """Take ``www.example.com`` for ``example.com``."""
    ignore_http: bool = True
    """Take ``http:`` for ``https:``."""
    ignore_parameters: tuple[str, ...] = IGNORED_PARAMETERS
    """Names of query parameters that do not count, whatever their case; ``*`` at the end stands for
    any rest.
    """

    def requires(self) -> tuple[str, ...]:
        return (URL, *super().requires())

    def canonical(self, url: str) -> str:
        """``canonical_url`` with the settings of this stage."""
        return canonical_url(url, self.ignore_www, self.ignore_http, self.ignore_parameters)

    def keys(self, documents: Documents, rows: Int64) -> dict[str, pa.Array]:
        digests = [
            xxhash.xxh3_128_digest(self.canonical(url).encode())
            if url and not url.isspace()
            else None
            for url in self._urls(documents).take(pa.array(rows)).to_pylist()
        ]
        present = np.array([digest is not None for digest in digests], np.bool_)
        hashes = np.zeros((len(digests), 2), np.uint64)
        known = b"".join(digest for digest in digests if digest is not None)
        hashes[present] = np.frombuffer(known, ">u8").reshape(-1, 2)
        return {
            "hash_high": pa.array(hashes[:, 0]),
            "hash_low": pa.array(hashes[:, 1]),
            "has_url": pa.array(present),
        }

    def join(self, summaries: Summaries, components: Components) -> None:
        high = read_column(summaries, "hash_high", np.uint64)
        low = read_column(summaries, "hash_low", np.uint64)
        components.join(high, low, read_column(summaries, "has_url", np.bool_))

    def _urls(self, documents: Documents) -> pa.Array:
        if URL not in documents.batch.schema.names:
            raise TamisError(f"Stage {self.name} needs the column {URL}.")
        urls = documents.batch.column(URL)
        if urls.null_count == len(urls):
            return pa.nulls(len(urls), pa.string())
        kind = urls.type.value_type if pa.types.is_dictionary(urls.type) else urls.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise TamisError(f"The column {URL!r} holds {kind}, not strings.")
        return urls


def canonical_url(
    url: str,
    ignore_www: bool = True,
    ignore_http: bool = True,
    ignore_parameters: tuple[str, ...] = IGNORED_PARAMETERS,
) -> str:
    """The one spelling of all URLs of a page, by the rules of the module.

    Idempotent. What has no host, or a port that is no number, comes back without white space at its
    ends.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return url
    if not host:
        return url
    if port == _DEFAULT_PORTS.get(parts.scheme):
        port = None
    scheme = "https" if parts.scheme == "http" and ignore_http else parts.scheme
    path = _path(parts.path, ignore_parameters)
    query = _query(parts.query, ignore_parameters)
    fragment = f"#{_escape(parts.fragment)}" if parts.fragment.startswith("!") else ""
    return f"{scheme}://{_authority(parts, host, port, ignore_www)}{path}{query}{fragment}"


def _authority(parts: SplitResult, host: str, port: int | None, ignore_www: bool) -> str:
    while ignore_www and host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    if ":" in host:
        host = f"[{host}]"
    user, at, _ = parts.netloc.rpartition("@")
    return user + at + host + ("" if port is None else f":{port}")


def _path(path: str, ignored: tuple[str, ...]) -> str:
    path = _escape(path)
    if "/." in path:
        path = _without_dot_segments(path)
    while True:
        path = path.rstrip("/")
        head, semicolon, parameter = path.rpartition(";")
        if not semicolon or "/" in parameter or not _is_ignored(parameter, ignored):
            return path or "/"
        path = head


def _without_dot_segments(path: str) -> str:
    """RFC 3986, section 5.2.4, for a path that begins with a slash."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != ".":
            kept.append(segment)
    return "/".join(kept)


def _query(query: str, ignored: tuple[str, ...]) -> str:
    """The parameters that count, by name; those of one name stay in their order."""
    if not query:
        return ""
    parameters = [one for one in _escape(query).split("&") if one and not _is_ignored(one, ignored)]
    parameters.sort(key=lambda parameter: parameter.partition("=")[0])
    return "?" + "&".join(parameters) if parameters else ""


def _escape(part: str) -> str:
    """Percent-encoding as it has to be, with capitals, and for no unreserved character."""
    if _NOTHING_TO_ESCAPE.fullmatch(part):
        return part
    part = quote(_LONE_PERCENT.sub("%25", part), safe=_RESERVED + "%")
    return _ESCAPED.sub(_unescape_unreserved, part)


def _unescape_unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _is_ignored(parameter: str, ignored: tuple[str, ...]) -> bool:
    name = parameter.partition("=")[0].lower()
    names, prefixes = _ignored_names(ignored)
    return name in names or name.startswith(prefixes)


@cache
def _ignored_names(ignored: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Whole names, and beginnings of names."""
    lower = [name.lower() for name in ignored]
    prefixes = tuple(name[:-1] for name in lower if name.endswith("*"))
    return frozenset(name for name in lower if not name.endswith("*")), prefixes
