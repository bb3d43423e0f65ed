"""Issue an API key; for operators, who invoke it with IAM rights."""

from pi_voice.api_keys import IssuedApiKey, NewApiKey
from pi_voice.http import operation
from pi_voice.wiring import access

keys = access()


async def create_api_key(order: NewApiKey) -> IssuedApiKey:
    """Make a key, and its workspace with the first one; the secret is shown this once."""
    return await keys.issue(order)


handler = operation(create_api_key)
