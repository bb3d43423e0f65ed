"""DynamoDB Local, which Maven installs."""
