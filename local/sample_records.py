"""Records for the samples: their agent for the API reference, the others that they name for `make sam-invoke`.

They are written to the stand-in only, never to a database of the user.
"""

import base64
import json
import time
from typing import TYPE_CHECKING

from events.samples import ENDPOINT_ID, event
from local import dynamodb
from local.first_key import WORKSPACE
from local.stack import Surroundings

if TYPE_CHECKING:
    from pi_voice.domain.agents import OwnedAgent


async def save_agent(around: Surroundings) -> "OwnedAgent":
    """Save the samples' agent in the local workspace, and return it."""
    from pi_voice.adapters.aws import AwsClient  # noqa: PLC0415 (as in first_key)
    from pi_voice.adapters.dynamodb.agents import DynamoAgents  # noqa: PLC0415
    from pi_voice.domain.agents import Agent, OwnedAgent  # noqa: PLC0415
    from pi_voice.domain.ids import WorkspaceId  # noqa: PLC0415
    from pi_voice.settings import TableNames  # noqa: PLC0415

    now = int(time.time())
    agent_id = json.loads(event("CreateSession")["body"])["agent_id"]
    stamp = {"agent_id": agent_id, "version": 1, "created_at": now, "updated_at": now}
    agent = Agent.model_validate_json(json.dumps(json.loads(event("CreateAgent")["body"]) | stamp))
    workspace, tables = WorkspaceId(WORKSPACE), TableNames.of(around.template.functions[0].environment)
    await DynamoAgents(AwsClient(dynamodb.client(around.dynamodb_url)), tables.agents).save(workspace, agent)
    return OwnedAgent(workspace, agent)


async def save_samples(around: Surroundings) -> None:
    """Save the records that the samples name, so that each function finds its own."""
    if around.services.dynamodb_url is not None:
        return
    from pi_voice.adapters.aws import AwsClient  # noqa: PLC0415 (as in first_key)
    from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys  # noqa: PLC0415
    from pi_voice.adapters.dynamodb.sessions import DynamoSessions  # noqa: PLC0415
    from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints  # noqa: PLC0415
    from pi_voice.domain.api_keys import ApiKey, generate  # noqa: PLC0415
    from pi_voice.domain.connection_api import CreateSessionRequest  # noqa: PLC0415
    from pi_voice.domain.ids import EndpointId, KeyId, SessionId, WorkspaceId  # noqa: PLC0415
    from pi_voice.domain.sessions import DEFAULT_GRACE_SECONDS  # noqa: PLC0415
    from pi_voice.domain.webhook_endpoint_api import CreateWebhookEndpointRequest  # noqa: PLC0415
    from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint  # noqa: PLC0415
    from pi_voice.settings import TableNames  # noqa: PLC0415

    owned, now = await save_agent(around), int(time.time())
    request = CreateSessionRequest.model_validate_json(event("CreateSession")["body"])
    room = json.loads(base64.b64decode(event("ReceiveLivekitWebhook")["body"]))["room"]
    session = request.new_session(SessionId(room["name"]), owned, now, DEFAULT_GRACE_SECONDS).opened(room["sid"], now)
    to_revoke, secret = event("RevokeApiKey"), generate()
    key = ApiKey(
        key_id=KeyId(to_revoke["key_id"]),
        workspace=WorkspaceId(to_revoke["workspace"]),
        name="sample",
        hint=secret.hint,
        created_at=now,
    )
    endpoint = WebhookEndpoint(
        **dict(CreateWebhookEndpointRequest.model_validate_json(event("CreateWebhookEndpoint")["body"])),
        endpoint_id=EndpointId(ENDPOINT_ID),
        workspace=WorkspaceId(WORKSPACE),
        secret=SecretVersion("sample", 1),
        created_at=now,
        updated_at=now,
    )
    rows = AwsClient(dynamodb.client(around.dynamodb_url))
    tables = TableNames.of(around.template.functions[0].environment)
    await DynamoSessions(rows, tables.sessions).add(session)
    await DynamoApiKeys(rows, tables.api_keys).add(key, secret.hash)
    await DynamoWebhookEndpoints(rows, tables.webhook_endpoints).add(endpoint)
