"""SQS queue: deliver events to webhook endpoints."""

from pi_voice import container
from pi_voice.entrypoints.events import delivery_handler

handler = delivery_handler(container.deliver_event(), container.delivery_queue())
