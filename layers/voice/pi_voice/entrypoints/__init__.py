"""Lambda handlers for HTTP requests, SQS messages, EventBridge schedules and operators."""
