"""The API does what its description says; the pages need nobody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs: pip install 'semamba[web]'")

import httpx

from semamba.web.settings import STATIC
from tests.web.serving import Running, encode, noisy

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in STATIC.rglob("*") if path.suffix in (".html", ".css", ".js", ".svg"))


def test_requests_made_up_from_the_description(server: Running) -> None:
    """Every answer is one that is described, in its form; nothing makes the server fail."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs the library schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    schemathesis.openapi.format("binary", st.sampled_from([encode(noisy(0.05)), b"", b"RIFF", bytes(100)]))
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    checks = schemathesis.checks
    wanted = [
        checks.not_a_server_error,
        *checks.CHECKS.get_by_names(
            ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
        ),
    ]
    seen = set()
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) == 4
    for operation in operations:

        @settings(
            max_examples=15,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(operation.as_strategy())
        def run(case: object) -> None:
            answer = case.call(timeout=30)  # type: ignore[attr-defined]
            seen.add(answer.status_code)
            case.validate_response(answer, checks=wanted)  # type: ignore[attr-defined]

        run()
    assert 200 in seen and seen <= {200, 400, 404, 405, 413, 415, 422}
    assert not server.left_behind()


def test_every_error_is_one_line_of_json(client: httpx.Client) -> None:
    answers = [
        client.get("/nothing"),
        client.put("/v1/enhance"),
        client.post("/v1/enhance"),
        client.get("/models/causal-small/other"),
        client.post("/healthz", content=b"x"),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 415, 404, 405]
    for answer in answers:
        assert list(answer.json()) == ["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", re.sub(r"^\s*(//|\*|/\*).*$", "", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", [p for p in PAGES if p.suffix == ".html"], ids=lambda path: path.name)
def test_pages_obey_their_own_policy(path: Path) -> None:
    """The content security policy allows neither scripts nor styles inside the document."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)


def test_what_pages_load_is_there(client: httpx.Client) -> None:
    for page in ("/", "/docs"):
        answer = client.get(page)
        assert answer.headers["content-type"].startswith("text/html")
        for target in re.findall(r'(?:src|href)="(static/[^"]+)"', answer.text):
            found = client.get(f"/{target}")
            assert found.status_code == 200, target
            if target.endswith(".js"):
                assert found.headers["content-type"].startswith("text/javascript")
    for module in STATIC.rglob("*.js"):
        for target in re.findall(r'(?:from|import) "(\.[^"]+)"', module.read_text(encoding="utf-8")):
            assert (module.parent / target).is_file(), f"{module.name} imports {target}"


def test_no_file_of_the_page_grows_out_of_sight() -> None:
    long = [path.name for path in PAGES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not long


def test_the_example_is_the_one_of_the_examples() -> None:
    assert (STATIC / "example.wav").read_bytes() == (ROOT / "examples" / "noisy.wav").read_bytes()


def test_the_assets_leave_room_in_the_wheel() -> None:
    """The whole wheel stays below 30 MB."""
    package = STATIC.parents[1]
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert size < 30_000_000
