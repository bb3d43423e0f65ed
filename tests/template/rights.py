"""What each function may do, by logical id: actions of DynamoDB on tables and their indexes, and reading the secret.

tests/template holds the template to it, and tests/functions what the functions do.
"""

from collections.abc import Mapping

KEY_CHECK = {"ApiKeysTable": {"GetItem"}}
RIGHTS: Mapping[str, Mapping[str, set[str]]] = {
    "CreateAgent": KEY_CHECK | {"AgentsTable": {"PutItem"}},
    "ListAgents": KEY_CHECK | {"AgentsTable/index/by_workspace": {"Query"}},
    "GetAgent": KEY_CHECK | {"AgentsTable": {"GetItem"}},
    "UpdateAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "PutItem"}},
    "DeleteAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "DeleteItem"}},
    "ListVoices": KEY_CHECK,
    "CreateSession": KEY_CHECK | {"AgentsTable": {"GetItem"}, "SessionsTable": {"PutItem"}, "the secret": {"read"}},
    "ListSessions": KEY_CHECK | {"SessionsTable/index/by_workspace": {"Query"}, "SessionsTable": {"BatchGetItem"}},
    "GetSession": KEY_CHECK | {"SessionsTable": {"GetItem"}, "TranscriptsTable": {"Query"}},
    "DeleteSession": KEY_CHECK
    | {"SessionsTable": {"GetItem", "DeleteItem"}, "TranscriptsTable": {"Query", "DeleteItem"}},
    "CompleteSession": KEY_CHECK
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"PutItem", "UpdateItem"},
        "the secret": {"read"},
    },
    "AddParticipant": KEY_CHECK | {"SessionsTable": {"GetItem"}, "the secret": {"read"}},
    "ReceiveLivekitWebhook": {"SessionsTable": {"UpdateItem"}, "the secret": {"read"}},
    "CreateApiKey": {"ApiKeysTable": {"PutItem"}},
    "ListApiKeys": {"ApiKeysTable/index/by_workspace": {"Query"}},
    "RevokeApiKey": {"ApiKeysTable/index/by_workspace": {"Query"}, "ApiKeysTable": {"UpdateItem"}},
}
