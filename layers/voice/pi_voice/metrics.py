"""CloudWatch metrics, written as log lines in the Embedded Metric Format: for what an alarm needs a cause."""

# ruff: noqa: PLC0415 (imported when an alarm is due, so that no cold start pays for it)
from typing import Final

NAMESPACE: Final = "PiVoice"


def count(name: str, **dimensions: str) -> None:
    """Count one event in the stack's own series: Powertools adds the dimension service, which is the stack's name."""
    from aws_lambda_powertools.metrics import MetricUnit, single_metric

    with single_metric(name=name, unit=MetricUnit.Count, value=1, namespace=NAMESPACE) as metric:
        for dimension, value in dimensions.items():
            metric.add_dimension(dimension, value)
