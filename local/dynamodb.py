"""DynamoDB: moto in a process of its own unless the user names an endpoint, and the template's tables in it."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.errors import CannotStart
from local.http_server import address, listen
from local.template import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_PROGRAM: Final = Path(__file__).with_name("dynamodb_process.py")
_PATIENCE: Final = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})


@asynccontextmanager
async def dynamodb_stand_in() -> AsyncIterator[str]:
    """Run moto and yield its address, which takes requests at once and answers them when moto is up."""
    with listen(0) as listener:
        url = address(listener)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(_PROGRAM),
            str(listener.fileno()),
            pass_fds=[listener.fileno()],
            stdin=PIPE,
            env={},  # nothing of the user's AWS profile
            start_new_session=True,  # Ctrl-C is for us alone
        )
    try:
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def client(url: str) -> "DynamoDBClient":
    """Make a client of a DynamoDB, with the credentials of this process's environment."""
    return boto3.client("dynamodb", endpoint_url=url, config=_PATIENCE)


def make_tables(dynamodb: "DynamoDBClient", tables: Iterable[Table]) -> None:
    """Make the tables that are not there yet; raises CannotStart when DynamoDB refuses or does not answer."""
    try:
        for table in tables:
            _make(dynamodb, table)
    except (BotoCoreError, ClientError) as error:
        raise CannotStart(f"The tables cannot be made: {str(error).rstrip('.')}.") from None


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
