"""Revoke an API key; for operators, who invoke it with IAM rights."""

from pi_voice.api_keys import ApiKey, KeyToRevoke
from pi_voice.http import operation
from pi_voice.wiring import access

keys = access()


async def revoke_api_key(order: KeyToRevoke) -> ApiKey:
    """Take a key back; containers that know it believe it for up to a minute more."""
    return await keys.revoke(order)


handler = operation(revoke_api_key)
