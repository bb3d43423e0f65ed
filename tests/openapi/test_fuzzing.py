"""The whole document against the whole API, by schemathesis: requests nobody thought of, alone and in sequences."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from local.running import running_api

ROOT: Final = Path(__file__).parents[2]
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
def test_no_request_makes_an_error_of_ours_or_an_answer_that_is_not_documented() -> None:
    """Nothing here is signed by LiveKit, so behind its webhook's 401 other tests look (test_webhook_fuzzed.py)."""
    with running_api({**os.environ, "POWERTOOLS_LOG_LEVEL": "ERROR"}) as api:
        found = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", ROOT / "docs" / "openapi.json"),
                *("--url", api.base_url, "--header", f"Authorization: Bearer {api.api_key}"),
                *("--checks", ",".join(CHECKS)),
                *("--phases", "examples,coverage,fuzzing,stateful", "--max-time", SECONDS),
                *("--request-timeout", "300", "--suppress-health-check", "too_slow"),  # the machine may be
                *("--max-examples", "10", "--seed", "1", "--generation-database", "none", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    assert found.returncode == 0, found.stdout + found.stderr
    assert "passed" in found.stdout
