"""List a workspace's API keys; for operators, who invoke it with IAM rights."""

from pi_voice.api_keys import ApiKey, WorkspaceKeys
from pi_voice.documents import Page
from pi_voice.http import operation
from pi_voice.wiring import access

keys = access()


async def list_api_keys(order: WorkspaceKeys) -> Page[ApiKey]:
    """Return all keys of a workspace, revoked ones too, newest first and without their secrets."""
    return await keys.list(order)


handler = operation(list_api_keys)
