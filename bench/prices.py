"""What AWS asks, in dollars: us-east-1, arm64, HTTP API, on demand, first tier. Written down from memory, not checked.

Hold them against your region's before you rely on them. The pages: aws.amazon.com/dynamodb/pricing/on-demand,
/lambda/pricing, /api-gateway/pricing, /cloudwatch/pricing.
"""

from typing import Final

MILLION: Final = 1_000_000
GB: Final = 1_000_000_000

READ_UNIT: Final = 0.125 / MILLION
WRITE_UNIT: Final = 0.625 / MILLION
HTTP_API_REQUEST: Final = 1.00 / MILLION
LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_SECOND: Final = 0.0000133334
LOG_GB: Final = 0.50

PLATFORM_LOG_BYTES: Final = 450
"""START, END and REPORT, which Lambda writes around each invocation."""

ACCESS_LOG_BYTES: Final = 500
"""One line of the access log by the template's format."""
