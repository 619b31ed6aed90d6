"""MinHash signatures and band keys: golden values, numpy, datasketch."""

from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash as DatasketchMinHash

from tamis.filters.dedup.banding import candidate_probability
from tamis.filters.dedup.minhash import MinHash
from tamis.filters.dedup.signatures import (
    band_keys,
    lower_to_minimum,
    permutations,
    splitmix64,
)
from tests.filters.dedup.conftest import make_documents
from tests.filters.dedup.test_shingles import shingle_reference, word_hash_reference

FOX = b"the quick brown fox jumps over the lazy dog"


def byte_shingles(text: bytes, ngram: int) -> np.ndarray:
    return np.array(shingle_reference([b + 1 for b in text], min(ngram, len(text))), np.uint32)


def signature_of(shingles: np.ndarray, count: int, seed: int) -> np.ndarray:
    a, b = permutations(count, seed)
    signature = np.full(count, 2**32 - 1, np.uint32)
    lower_to_minimum(np.resize(shingles, -(-len(shingles) // 8) * 8), a, b, signature)
    return signature


def word_shingles(text: str, ngram: int) -> set[int]:
    words = [h for h in map(word_hash_reference, text.split()) if h >= 0]
    return set(shingle_reference(words, min(ngram, len(words)))) if words else set()


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def test_splitmix64_and_permutations_known_values():
    expected = [0xBDD732262FEB6E95, 0x28EFE333B266F103, 0x47526757130F9F52, 0x581CE1FF0E4AE394]
    assert splitmix64(42, 4).tolist() == expected
    a, b = permutations(4, 42)
    assert a.tolist() == [0x2FEB6E95, 0x130F9F53, 0x244823F3, 0x45376D5D]
    assert b.tolist() == [0xB266F103, 0x0E4AE394, 0x3C80DB06, 0x9E9E2FA4]


def test_signature_known_values():
    signature = signature_of(byte_shingles(FOX, 5), 128, 42)
    assert signature[:8].tolist() == [
        0x0493D022, 0x00F8DD1D, 0x052F6594, 0x065AD287,
        0x084E9D70, 0x03722C40, 0x00EEB062, 0x030D4E7B,
    ]  # fmt: skip
    assert int(signature.sum(dtype=np.uint64)) % 2**32 == 0x39C02C15
    assert np.bitwise_xor.reduce(signature) == 0x0E2250AB
    short = signature_of(byte_shingles(b"abc", 5), 128, 42)
    assert short[:4].tolist() == [0x3BAE76F0, 0x37755C4F, 0x60093361, 0x10719E19]


def test_known_similarity_estimate():
    one = byte_shingles(FOX, 5)
    other = byte_shingles(FOX.replace(b"jumps", b"jumped"), 5)
    estimate = np.mean(signature_of(one, 128, 42) == signature_of(other, 128, 42))
    assert estimate == pytest.approx(0.7266, abs=5e-5)
    assert jaccard(set(one.tolist()), set(other.tolist())) == pytest.approx(0.7556, abs=5e-5)


def test_band_keys_known_values():
    keys = band_keys(signature_of(byte_shingles(FOX, 5), 128, 42)[None, :], 16)
    assert keys.shape == (16, 1)
    assert keys[:2, 0].tolist() == [0xEB6D9E8926BD557B, 0x9BD480578DBF2477]


@pytest.mark.parametrize(
    ("bands", "rows", "expected"),
    [(14, 8, [0.053, 0.211, 0.565, 0.924, 1.0]), (20, 13, [0.002, 0.026, 0.177, 0.677, 0.997])],
)
def test_candidate_probability_of_published_bandings(bands, rows, expected):
    values = [candidate_probability(j, bands, rows) for j in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert values == pytest.approx(expected, abs=6e-4)


def test_signatures_equal_the_definition_in_numpy(demo):
    texts = [record["text"] for record in demo[:60]] + [
        "",
        "...",
        "one",
        "one two three",
        "x " * 5000,
    ]
    stage = MinHash()
    a, b = (x.astype(np.uint64) for x in permutations(112, stage.seed))
    signature, words = stage.signatures(make_documents(texts))
    for text, found, count in zip(texts, signature, words, strict=True):
        shingles = np.array(sorted(word_shingles(text, 5)), np.uint64)
        assert count == sum(word_hash_reference(word) >= 0 for word in text.split())
        if len(shingles) == 0:
            assert (found == 2**32 - 1).all()
            continue
        expected = ((shingles[:, None] * a + b) % 2**32).min(axis=0)
        assert (found == expected).all()


def test_a_document_longer_than_a_tile_has_all_its_shingles():
    words = [f"w{i}" for i in range(2048 * 2 + 4)]
    signature, _ = MinHash().signatures(make_documents([" ".join(words)]))
    shingles = np.array(sorted(word_shingles(" ".join(words), 5)), np.uint32)
    assert (signature[0] == signature_of(shingles, 112, 1)).all()


def test_estimates_are_as_good_as_datasketch(copies):
    """The error of estimates over pairs of known Jaccard, beside datasketch with as many hashes."""
    texts = [text for text in copies if len(text) > 300][:300]
    generator = np.random.default_rng(3)
    edited = []
    for text in texts:
        words = text.split()
        cut = generator.integers(0, len(words) // 2)
        edited.append(" ".join(words[cut:] + texts[0].split()[: cut // 2]))
    shingles = [[word_shingles(t, 5) for t in side] for side in (texts, edited)]
    truth = np.array([jaccard(x, y) for x, y in zip(*shingles, strict=True)])
    stage = MinHash(bands=16, rows=8)
    ours = [stage.signatures(make_documents(side))[0] for side in (texts, edited)]
    error = np.sqrt(np.mean((np.mean(ours[0] == ours[1], axis=1) - truth) ** 2))
    theirs = []
    for side in shingles:
        sketches = [DatasketchMinHash(num_perm=128, hashfunc=int) for _ in side]
        for sketch, items in zip(sketches, side, strict=True):
            sketch.update_batch(items)
        theirs.append(sketches)
    estimates = [x.jaccard(y) for x, y in zip(*theirs, strict=True)]
    reference = np.sqrt(np.mean((np.array(estimates) - truth) ** 2))
    assert error < 1.25 * reference
    assert error < 0.05
