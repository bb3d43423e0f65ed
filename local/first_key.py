"""The API key that is there when the local stack is ready: a new one, or the one that PI_VOICE_API_KEY names."""

import os
import sys
from contextlib import closing
from typing import Final

from local.errors import CannotStart
from local.template import Template

WORKSPACE: Final = "local"

_PATIENCE_SECONDS: Final = 60.0
"""A machine that starts so much at once may be slower than DynamoDB."""


async def issue(template: Template, wanted: str | None) -> str:
    """Make an API key of the local workspace, as the function CreateApiKey does, and return it.

    Raises CannotStart when the wanted key does not look like one of ours.
    """
    sys.path[:0] = [str(layer) for layer in template.layers]
    from pi_voice.domain import api_keys  # noqa: PLC0415 (the layer is where the template says)
    from pi_voice.use_cases.manage_api_keys import ManageApiKeys  # noqa: PLC0415
    from pi_voice.adapters.aws import AwsService, DYNAMODB  # noqa: PLC0415
    from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys  # noqa: PLC0415
    from pi_voice.domain.errors import InvalidApiKey  # noqa: PLC0415
    from pi_voice.settings import AwsSettings, TableNames  # noqa: PLC0415

    try:
        secret = api_keys.parse(wanted) if wanted else api_keys.generate()
    except InvalidApiKey:
        raise CannotStart(f"PI_VOICE_API_KEY is no API key: one looks like {api_keys.generate().reveal()}.") from None
    environment = template.functions[0].environment
    order = api_keys.CreateApiKeyRequest(workspace=WORKSPACE, name="make run")
    settings = AwsSettings.of({**os.environ, **environment})
    patient = AwsService(
        settings, DYNAMODB, time_limit_seconds=_PATIENCE_SECONDS, patience_seconds=2 * _PATIENCE_SECONDS
    )
    with closing(patient) as dynamodb:
        access = ManageApiKeys(DynamoApiKeys(dynamodb, TableNames.of(environment).api_keys))
        return (await access.issue(order, secret)).api_key
