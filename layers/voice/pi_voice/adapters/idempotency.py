"""Idempotency-Key by Powertools' idempotency, with a table of its own.

Powertools would store whole responses, tokens included, and fail after the work if a response exceeds an item. So the
idempotent function returns only an id, and a repeated response is rebuilt from the stored resource (docs/adr/0015).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from pi_voice.adapters.aws import AwsClient
from pi_voice.domain.errors import IdempotencyInProgress, IdempotencyKeyReused, StorageError
from pi_voice.domain.idempotency import IdempotentRequest
from pi_voice.logs import logger

RECORD_SECONDS: Final = 86_400
"""How long a key is stored."""

_THREADS: Final = 8
"""Number of threads; requests run one after the other, unless earlier ones hang."""

Result = TypeVar("Result")


class _Store(DynamoDBPersistenceLayer):
    """Powertools' store, with the deadline of `AwsClient` for each request."""

    def __init__(self, dynamodb: AwsClient, table: str) -> None:
        super().__init__(table_name=table, boto3_client=dynamodb.boto3_client)  # type: ignore[arg-type]
        self._dynamodb = dynamodb
        self._threads = ThreadPoolExecutor(_THREADS)

    def _get_record(self, idempotency_key: str) -> DataRecord:
        return self._call(super()._get_record, idempotency_key)

    def _put_record(self, data_record: DataRecord) -> None:
        self._call(super()._put_record, data_record)

    def _update_record(self, data_record: DataRecord) -> None:
        self._call(super()._update_record, data_record)

    def _delete_record(self, data_record: DataRecord) -> None:
        self._call(super()._delete_record, data_record)

    def _call(self, function: Callable[..., Result], record: object) -> Result:
        return self._dynamodb.call(self._threads, function, record)


class Idempotency:
    """Records processed requests for a day, with the ids of the resources they created."""

    def __init__(self, dynamodb: AwsClient, table: str) -> None:
        self._store = _Store(dynamodb, table)

    def once(self, request: IdempotentRequest, context: LambdaContext, work: Callable[[], str]) -> str:
        """Do the work unless the same request did it before, and return the id of the resource it created.

        After an error of the work, which is raised, the request may be repeated. Raises InvalidRequest for a
        malformed key, IdempotencyKeyReused for another body, IdempotencyInProgress, StorageError.
        """
        request.check_key()
        created: list[str] = []
        failed: list[Exception] = []

        def do(*, request: dict[str, str]) -> str:  # noqa: ARG001 (Powertools reads it)
            try:
                created.append(work())
            except Exception as error:
                failed.append(error)
                raise
            return created[0]

        config = IdempotencyConfig(
            event_key_jmespath="request",
            payload_validation_jmespath="body",
            expires_after_seconds=RECORD_SECONDS,
            hash_function="sha256",
            lambda_context=context,
        )
        idempotent = idempotent_function(
            do, data_keyword_argument="request", persistence_store=self._store, config=config, key_prefix="pi-voice"
        )
        try:
            return str(idempotent(request={"request": request.identity, "body": request.body_hash}))
        except IdempotencyValidationError:
            raise IdempotencyKeyReused from None
        except (IdempotencyAlreadyInProgressError, IdempotencyInconsistentStateError):
            raise IdempotencyInProgress from None
        except IdempotencyPersistenceLayerError as error:
            logger.error("idempotency_key_not_stored", error=type(error.__cause__).__name__)
            if failed:
                raise failed[0] from None
            if created:
                return created[0]  # the work is done; an error here would make the client repeat it
            raise StorageError from None
