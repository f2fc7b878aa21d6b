"""/openapi.json says what the service does: schemathesis asks by it, with all its checks."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from http_bridge.app import create_app
from http_bridge.drain import Drain
from http_bridge.metrics import Metrics
from http_bridge.openapi import TIMEOUT_PATTERN
from tests.conftest import Service
from tests.fakes import bridge_settings
from tests.programs import ROOT

Json = dict[str, Any]


def run_schemathesis(service: Service, directory: Path, *options: str) -> str:
    """Returns its report. Hooks say what a JSON schema cannot."""
    config = directory / "schemathesis.toml"
    config.write_text('hooks = "tests.schemathesis_hooks"\n')
    asked = ("--checks", "all", "--continue-on-failure", "--request-timeout", "300", "--max-response-time", "300")
    program = Path(sys.executable).parent / "schemathesis"
    run = (str(program), "--config-file", str(config), "run", f"{service.url}/openapi.json", *asked, *options)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(directory), "COLUMNS": "200"}
    done = subprocess.run(run, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def case_count(report: str) -> int:
    found = re.search(r"(\d+) generated", report)
    assert found, report
    return int(found.group(1))


def test_schemathesis_finds_nothing_in_some_cases(service: Service, tmp_path: Path) -> None:
    report = run_schemathesis(service, tmp_path, "--phases", "examples,fuzzing", "-n", "50")
    assert case_count(report) >= 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing_in_thousands_of_cases(service: Service, tmp_path: Path) -> None:
    coverage = run_schemathesis(service, tmp_path, "--phases", "examples,coverage,stateful", "-n", "10")
    fuzzing = run_schemathesis(service, tmp_path, "--phases", "fuzzing", "-n", "1000")
    assert case_count(coverage) + case_count(fuzzing) >= 2000


@pytest.fixture(scope="module")
def description() -> Json:
    return create_app(bridge_settings("localhost:1"), Metrics(), Drain(1)).openapi()


def test_the_chat_operation_is_described_whole(description: Json) -> None:
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    errors = {"400", "403", "404", "405", "408", "413", "415", "421", "429", "431", "500", "501", "503", "504"}
    assert set(chat["responses"]) == {"200"} | errors
    for status in errors:
        content = chat["responses"][status]["content"]
        assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    [timeout] = chat["parameters"]
    assert timeout["schema"]["pattern"] == TIMEOUT_PATTERN
    assert "X-Ignored-Fields" in chat["responses"]["200"]["headers"]


def test_the_request_is_described_as_it_is_checked(description: Json) -> None:
    request = description["components"]["schemas"]["ChatCompletionRequest"]
    fields = request["properties"]
    assert [kind.get("type") for kind in fields["stop"]["anyOf"]] == ["string", "array", None]
    assert (fields["messages"]["minItems"], fields["messages"]["maxItems"]) == (1, 1024)
    assert fields["seed"]["anyOf"][0] == {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    nothing = [False, "", "none", [], {}, None]
    assert fields["seed"]["anyOf"][1] == {"enum": nothing}
    assert fields["max_tokens"]["anyOf"][1] == {"enum": [*nothing, -1]}
    assert fields["n"]["anyOf"][0] == {"enum": [*nothing, 1]}
    assert {"type": "text"} in fields["response_format"]["anyOf"][0]["enum"]
    assert request["required"] == ["messages"]
    assert "additionalProperties" not in request


def test_head_is_described_where_get_is(description: Json) -> None:
    for operations in description["paths"].values():
        assert ("get" in operations) == ("head" in operations)
        for response in operations.get("head", {"responses": {}})["responses"].values():
            assert "content" not in response


def test_no_reference_leads_nowhere(description: Json) -> None:
    schemas = description["components"]["schemas"]
    named = set(re.findall(r'#/components/schemas/([^"\']+)', repr(description)))
    assert named <= set(schemas)


@pytest.mark.parametrize(
    ("seconds", "is_fit"),
    [("1", True), ("0.5", True), ("0.30000000000000004", True), ("29.987654321098765", True),
     ("0.50", True), ("86400", True), ("86400.0", True), ("86399.999999999", True),
     ("0.000000001", True), ("9999.5", True), ("10000", True), ("79999", True), ("85999", True), ("86000", True),
     ("0", False), ("0.0", False), ("00.5", False), ("86400.1", False), ("86401", False), ("87000", False),
     ("90000", False), ("100000", False), ("1.", False), (".5", False), ("1e3", False), ("-1", False), ("٣", False)],
)  # fmt: skip
def test_the_pattern_of_the_timeout_is_its_range(seconds: str, is_fit: bool) -> None:
    assert bool(re.fullmatch(TIMEOUT_PATTERN, seconds)) == is_fit


async def test_the_description_that_is_served_is_this_one(http: httpx2.AsyncClient, description: Json) -> None:
    assert (await http.get("/openapi.json")).json() == description
