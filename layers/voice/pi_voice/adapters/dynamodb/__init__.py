"""DynamoDB: one module per table."""
