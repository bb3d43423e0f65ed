"""Schemathesis on the whole document and the local stack: random requests, single and in sequences."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from local.running import running_api
from tests.support.template import ROOT

SECONDS: Final = "40"
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "use_after_free",
    "ensure_resource_availability",
)


@pytest.mark.fuzz
def test_no_request_causes_a_server_error_or_an_undocumented_response() -> None:
    """The requests carry no LiveKit signature, so test_webhook_fuzzed.py covers the webhook beyond its 401."""
    with running_api({**os.environ, "POWERTOOLS_LOG_LEVEL": "ERROR"}) as api:
        found = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("--config-file", Path(__file__).with_name("schemathesis.toml")),
                *("run", ROOT / "docs" / "openapi.json"),
                *("--url", api.base_url, "--header", f"Authorization: Bearer {api.api_key}"),
                *("--checks", ",".join(CHECKS)),
                *("--phases", "examples,coverage,fuzzing,stateful", "--max-time", SECONDS),
                *("--request-timeout", "300", "--suppress-health-check", "too_slow"),  # a busy machine is slow
                *("--max-examples", "10", "--seed", "1", "--generation-database", "none", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    assert found.returncode == 0, found.stdout + found.stderr
    assert "passed" in found.stdout
