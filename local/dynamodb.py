"""DynamoDB: create the template's tables if they are missing."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from local.aws import CLIENT_CONFIG
from local.errors import CannotStart
from local.template import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


def client(url: str) -> "DynamoDBClient":
    """Create a DynamoDB client with the credentials of this process's environment."""
    return boto3.client("dynamodb", endpoint_url=url, config=CLIENT_CONFIG)


def make_tables(dynamodb: "DynamoDBClient", tables: Iterable[Table]) -> None:
    """Create the missing tables; raises CannotStart if DynamoDB refuses or does not answer."""
    try:
        for table in tables:
            _make(dynamodb, table)
    except (BotoCoreError, ClientError) as error:
        raise CannotStart(f"The tables cannot be created: {str(error).rstrip('.')}.") from None


def _make(dynamodb: "DynamoDBClient", table: Table) -> None:
    definition: Any = table.definition
    try:
        dynamodb.create_table(**definition)
    except dynamodb.exceptions.ResourceInUseException:
        return
    dynamodb.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    if table.ttl_attribute:
        dynamodb.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": table.ttl_attribute},
        )
