"""Duplicates: exact documents and near-duplicates (MinHash-LSH)."""
