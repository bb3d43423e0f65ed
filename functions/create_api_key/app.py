"""Create an API key; for operators, who invoke the function with IAM permissions."""

from pi_voice import container
from pi_voice.entrypoints.events import operator_handler

handler = operator_handler(container.manage_api_keys().create_api_key)
