"""Return the messages of failed extractions to the queue, after their cause was removed.

    redrive.py <stack>

Sessions that have results by now, or were deleted, are skipped by the function that reads the queue.
"""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_sqs import SQSClient


def redrive(queues: SQSClient, stack: str) -> int:
    """Start to move all messages of the stack's dead-letter queue back; return their approximate number."""
    url = queues.get_queue_url(QueueName=f"{stack}-extractions-dead")["QueueUrl"]
    attributes = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "ApproximateNumberOfMessages"])[
        "Attributes"
    ]
    if messages := int(attributes["ApproximateNumberOfMessages"]):
        queues.start_message_move_task(SourceArn=attributes["QueueArn"])
    return messages


def main() -> str | None:
    """Redrive, and say how many extractions are tried again; return an error message, if any."""
    try:
        print(f"Extractions that are tried again: {redrive(boto3.client('sqs'), sys.argv[1])}.")
    except (BotoCoreError, ClientError) as fault:
        return str(fault)
    return None


if __name__ == "__main__":
    sys.exit(main())
