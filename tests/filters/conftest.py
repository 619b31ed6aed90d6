"""Tests of filters leave nothing in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered between runs goes into a folder of the session."""
    before = os.environ.get("TAMIS_CACHE")
    os.environ["TAMIS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TAMIS_CACHE"]
    else:
        os.environ["TAMIS_CACHE"] = before
