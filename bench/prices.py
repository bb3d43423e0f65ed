"""AWS's list prices in dollars: us-east-1, arm64, HTTP API, on demand, first tier.

Checked on 2026-11-27, those of SQS on 2026-11-30, against stored copies of public pages, not against the live ones.
AWS's pages load most prices by script, so a stored copy has only those of worked examples. The others come from at
least two other sources.
Compare them with the prices of your region before you rely on them.
"""

from typing import Final

MILLION: Final = 1_000_000
GB: Final = 1_000_000_000

# aws.amazon.com/dynamodb/pricing/on-demand/ shows them by script. Found, as halved in November 2024, at
# airbyte.com/data-engineering-resources/dynamodb-pricing (July 2025), at
# costpatrol.io/blog/dynamodb-on-demand-vs-provisioned-pricing, and in a reading of AWS's Price List of 2026-09-11.
# Many pages of 2026 still have the older $0.25 and $1.25.
READ_UNIT: Final = 0.125 / MILLION
WRITE_UNIT: Final = 0.625 / MILLION

# aws.amazon.com/api-gateway/pricing/ shows it by script. Found at
# awsforengineers.com/blog/aws-api-gateway-pricing-explained (May 2025), go-cloud.io/aws-api-gateway-pricing (2026), and
# in a reading of AWS's Price List of 2026-09-21. It is per 512 KB of a request, for the first 300 million of a
# month; the next cost $0.90.
HTTP_API_REQUEST: Final = 1.00 / MILLION

# "AWS Lambda pricing", aws.amazon.com/lambda/pricing/: both from its example of durable functions, on arm64 in
# us-east-1. The second is for the first 7.5 billion GB-seconds of a month, by readings of AWS's Price List of October
# 2025 and of 2026-09-19.
LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_SECOND: Final = 0.0000133334

# aws.amazon.com/cloudwatch/pricing/ shows it by script. Found at duckbillgroup.com/?p=9080 (May 2025: the first tier of
# Lambda's logs costs what all cost before), go-cloud.io/aws-api-gateway-pricing (2026), and in a reading of AWS's Price
# List of 2026-09-22. Storage costs $0.03 per GB and month and is not included.
LOG_GB: Final = 0.50

# aws.amazon.com/sqs/pricing/ shows them by script. Found at cloudburn.io/blog/amazon-sqs-pricing (March 2026) and at
# factualminds.com/blog/amazon-sqs-pricing-64kb-rule-fifo-vs-standard (June 2026). They are per 64 KB of a request, for
# the first 100 billion of a month; the first million of a month is free, and is not deducted here.
SQS_REQUEST: Final = 0.40 / MILLION
SQS_FIFO_REQUEST: Final = 0.50 / MILLION

# "AWS Lambda Adds Amazon Simple Queue Service to Supported Event Sources", aws.amazon.com/blogs/aws/ (2018), as quoted
# in two public files: Lambda polls a queue on five connections, and on more if there are messages. That each request
# waits 20 s for messages is from readings of users' bills and metrics (github.com/getlift/lift/issues/132), and so is
# not checked; neither is that a FIFO queue has as many connections. SQS bills these requests like any others.
IDLE_POLLS_PER_MINUTE: Final = 5 * 60 / 20

MINUTES_PER_MONTH: Final = 730 * 60

PLATFORM_LOG_BYTES: Final = 450
"""Bytes of START, END and REPORT, which Lambda logs for each invocation."""

ACCESS_LOG_BYTES: Final = 500
"""Bytes of one line of the access log in the template's format."""
