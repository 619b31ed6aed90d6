"""Duplicates: exact documents and near-duplicates (MinHash-LSH).

Both are fitted stages: ``summarize`` gives every document keys, ``fit`` joins documents with equal
keys into clusters (``components``) and chooses the one to keep (``keepers``), and the stage then
drops the others, each with the id of the document that stands for it. In memory:
``deduplicate(table, MinHash())``.
"""

from tamis.filters.dedup.datasketch import from_datasketch, to_datasketch
from tamis.filters.dedup.duplicates import deduplicate
from tamis.filters.dedup.exact import ExactDedup
from tamis.filters.dedup.minhash import MinHash

__all__ = ["ExactDedup", "MinHash", "deduplicate", "from_datasketch", "to_datasketch"]
