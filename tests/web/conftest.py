"""One server for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.web.serving import Running


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """Takes 1 MB and 30 s."""
    pytest.importorskip("fastapi", reason="the server needs: pip install 'semamba[web]'")
    from semamba.web.settings import Settings
    from tests.web.serving import running

    with running(Settings(max_megabytes=1, max_seconds=30, jobs=1)) as it:
        yield it


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    import httpx

    with httpx.Client(base_url=server.url, timeout=60) as it:
        yield it
