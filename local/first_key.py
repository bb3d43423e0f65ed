"""The first API key of the local stack: a new one, or the value of PI_VOICE_API_KEY."""

import sys
from typing import Final

from local import dynamodb
from local.errors import CannotStart
from local.template import Template

WORKSPACE: Final = "local"

_PATIENCE_SECONDS: Final = 60.0
"""Time limit of a request: moto may be slow while the rest of the stack starts."""


async def issue(template: Template, wanted: str | None) -> str:
    """Issue an API key for the local workspace, as the function CreateApiKey does, and return it.

    Raises CannotStart if the wanted key is not in the format of an API key.
    """
    sys.path[:0] = [str(layer) for layer in template.layers]
    from pi_voice.adapters.aws import AwsClient  # noqa: PLC0415
    from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys  # noqa: PLC0415
    from pi_voice.domain import api_keys  # noqa: PLC0415 (the template says where the layer is)
    from pi_voice.domain.errors import InvalidApiKey  # noqa: PLC0415
    from pi_voice.settings import TableNames  # noqa: PLC0415
    from pi_voice.use_cases.manage_api_keys import ManageApiKeys  # noqa: PLC0415

    try:
        secret = api_keys.parse(wanted) if wanted else api_keys.generate()
    except InvalidApiKey:
        raise CannotStart(
            f"PI_VOICE_API_KEY is not an API key: one looks like {api_keys.generate().reveal()}."
        ) from None
    environment = template.functions[0].environment
    request = api_keys.CreateApiKeyRequest(workspace=WORKSPACE, name="make run")
    rows = dynamodb.client(environment["AWS_ENDPOINT_URL_DYNAMODB"])
    manage_api_keys = ManageApiKeys(
        DynamoApiKeys(AwsClient(rows, _PATIENCE_SECONDS), TableNames.of(environment).api_keys)
    )
    return (await manage_api_keys.create_api_key(request, secret)).api_key
