"""Return the messages of failed extractions and events to their queues, after the cause was removed.

    redrive.py <stack>

Sessions that have results by now, owe no events, or were deleted, are skipped by the function that reads the queue.
"""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_sqs import SQSClient


def redrive(queues: SQSClient, stack: str, queue: str) -> int:
    """Start to move all messages of one of the stack's dead-letter queues back; return their approximate number."""
    url = queues.get_queue_url(QueueName=f"{stack}-{queue}-dead")["QueueUrl"]
    attributes = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "ApproximateNumberOfMessages"])[
        "Attributes"
    ]
    if messages := int(attributes["ApproximateNumberOfMessages"]):
        queues.start_message_move_task(SourceArn=attributes["QueueArn"])
    return messages


def main() -> str | None:
    """Redrive, and say how many messages are tried again; return an error message, if any."""
    queues, stack = boto3.client("sqs"), sys.argv[1]
    try:
        print(f"Extractions that are tried again: {redrive(queues, stack, 'extractions')}.")
        print(f"Sessions whose events are tried again: {redrive(queues, stack, 'events')}.")
    except (BotoCoreError, ClientError) as fault:
        return str(fault)
    return None


if __name__ == "__main__":
    sys.exit(main())
