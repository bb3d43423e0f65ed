"""SQS: create the template's queues if they are missing."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from local.aws import CLIENT_CONFIG
from local.errors import CannotStart
from local.template import Queue

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient


def client(url: str) -> "SQSClient":
    """Create an SQS client with the credentials of this process's environment."""
    return boto3.client("sqs", endpoint_url=url, config=CLIENT_CONFIG)


def make_queues(sqs: "SQSClient", queues: Iterable[Queue]) -> dict[str, str]:
    """Create the missing queues, and return the URLs of all queues by name.

    Raises CannotStart if SQS refuses or does not answer.
    """
    urls: dict[str, str] = {}
    try:
        for queue in sorted(queues, key=lambda queue: queue.dead_letters is not None):  # dead-letter queues first
            urls[queue.name] = _make(sqs, queue, urls)
    except (BotoCoreError, ClientError) as error:
        raise CannotStart(f"The queues cannot be created: {str(error).rstrip('.')}.") from None
    return urls


def _make(sqs: "SQSClient", queue: Queue, urls: Mapping[str, str]) -> str:
    attributes: Any = dict(queue.attributes)
    if queue.dead_letters:
        target = sqs.get_queue_attributes(QueueUrl=urls[queue.dead_letters], AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": target["Attributes"]["QueueArn"], "maxReceiveCount": queue.max_receives}
        attributes["RedrivePolicy"] = json.dumps(redrive)
    try:
        return sqs.create_queue(QueueName=queue.name, Attributes=attributes)["QueueUrl"]
    except sqs.exceptions.QueueNameExists:  # with other attributes
        return sqs.get_queue_url(QueueName=queue.name)["QueueUrl"]
