"""Idempotency-Key: a request that is sent again has its first outcome, once.

By Powertools' idempotency, over a table of its own. It would keep whole answers, tokens included, and fail after the
work where an answer is larger than an item; so what is made idempotent here returns an id alone, and a repeated answer
is built anew from what is kept.
"""

import hashlib
import re
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
from botocore.config import Config

from pi_voice.errors import Fault, IdempotencyInProgress, IdempotencyKeyReused, InvalidRequest, StorageError
from pi_voice.logs import logger
from pi_voice.ports import Scope

KEPT_SECONDS: Final = 86_400
KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
"""What a key may look like."""

_CONFIG: Final = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 3})
_THREADS: Final = 4
Answer = TypeVar("Answer")


class _Store(DynamoDBPersistenceLayer):
    """Powertools' store, of which each request ends in time; botocore alone would wait for as long as bytes come."""

    def __init__(self, table: str, patience_seconds: float) -> None:
        super().__init__(table_name=table, boto_config=_CONFIG)
        self._patience_seconds = patience_seconds
        self._threads = ThreadPoolExecutor(_THREADS)

    def _get_record(self, idempotency_key: str) -> DataRecord:
        return self._in_time(super()._get_record, idempotency_key)

    def _put_record(self, data_record: DataRecord) -> None:
        self._in_time(super()._put_record, data_record)

    def _update_record(self, data_record: DataRecord) -> None:
        self._in_time(super()._update_record, data_record)

    def _delete_record(self, data_record: DataRecord) -> None:
        self._in_time(super()._delete_record, data_record)

    def _in_time(self, request: Callable[..., Answer], *arguments: object) -> Answer:
        """Send a request from another thread; raises TimeoutError, and then lets it go its way."""
        return self._threads.submit(request, *arguments).result(self._patience_seconds)


class Idempotency:
    """Remembers for a day which requests were carried out, and what they made."""

    def __init__(self, table: str, patience_seconds: float) -> None:
        self._store = _Store(table, patience_seconds)

    @staticmethod
    def hash_of(scope: Scope, route: str, key: str, body: bytes) -> str:
        """Tell a request under a key from every other one."""
        return hashlib.sha256("\n".join(_told(scope, route, key, body).values()).encode()).hexdigest()

    def once(
        self, scope: Scope, route: str, key: str, body: bytes, context: LambdaContext, work: Callable[[], str]
    ) -> str:
        """Do the work unless the caller had it done under this key before, and return the id that it made.

        Raises what the work raises, and then it may be tried again; IdempotencyKeyReused for another body,
        IdempotencyInProgress while the first is not done, StorageError.
        """
        if not KEY.fullmatch(key):
            message = "Should be 1 to 255 visible ASCII characters, such as a UUID."
            raise InvalidRequest(faults=[Fault("Idempotency-Key", message)])
        told = _told(scope, route, key, body)
        made: list[str] = []
        failed: list[Exception] = []

        def do(*, request: dict[str, str]) -> str:  # noqa: ARG001 (Powertools looks at it)
            try:
                made.append(work())
            except Exception as error:
                failed.append(error)
                raise
            return made[0]

        config = IdempotencyConfig(
            event_key_jmespath="request",
            payload_validation_jmespath="body",
            expires_after_seconds=KEPT_SECONDS,
            hash_function="sha256",
            lambda_context=context,
        )
        idempotent = idempotent_function(
            do, data_keyword_argument="request", persistence_store=self._store, config=config, key_prefix="pi-voice"
        )
        try:
            return str(idempotent(request=told))
        except IdempotencyValidationError:
            raise IdempotencyKeyReused from None
        except (IdempotencyAlreadyInProgressError, IdempotencyInconsistentStateError):
            raise IdempotencyInProgress from None
        except IdempotencyPersistenceLayerError as error:
            logger.error("an idempotency key could not be kept", error=type(error.__cause__).__name__)
            if failed:
                raise failed[0] from None
            if made:
                return made[0]  # it is done: to fail now would have it done twice
            raise StorageError from None


def _told(scope: Scope, route: str, key: str, body: bytes) -> dict[str, str]:
    """Say whose request this is and for what, and apart from that what is in it."""
    caller = scope.workspace or scope.session_id or ""
    return {"request": f"{caller}\n{route}\n{key}", "body": hashlib.sha256(body).hexdigest()}
