"""The deliveries of a webhook endpoint that a caller may use, and their queue."""

from pi_voice.domain.errors import StorageError, WebhookDeliveryNotFound
from pi_voice.domain.ids import DeliveryId
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.logs import logger
from pi_voice.ports import DeliveryQueue, WebhookDeliveries


async def delivery_to(endpoint: WebhookEndpoint, deliveries: WebhookDeliveries, delivery_id: DeliveryId) -> Delivery:
    """Return a delivery to a webhook endpoint; raises WebhookDeliveryNotFound."""
    delivery = await deliveries.find(endpoint.endpoint_id, delivery_id)
    if delivery is None or delivery.workspace != endpoint.workspace:
        raise WebhookDeliveryNotFound
    return delivery


async def put_in_queue(queue: DeliveryQueue, delivery: Delivery) -> None:
    """Queue a delivery that is due. If that fails, the scheduled job queues it within a minute."""
    try:
        await queue.put(delivery)
    except StorageError:
        logger.error("delivery_not_queued", delivery_id=delivery.delivery_id)
