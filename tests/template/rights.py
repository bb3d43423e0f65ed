"""What each function may do, by logical id: actions on tables, their indexes and the queue, and reading the secret.

tests/template holds the template to it, and tests/functions what the functions do.
"""

from collections.abc import Mapping

KEY_CHECK = {"ApiKeysTable": {"GetItem"}}
ONCE = {"IdempotencyTable": {"PutItem", "UpdateItem", "DeleteItem"}}
SECRET = {"the secret": {"read"}}
POLLED = {"DeleteMessage", "GetQueueAttributes", "ReceiveMessage"}
"""What Lambda does in the worker's name, to give it the queue's messages."""

RIGHTS: Mapping[str, Mapping[str, set[str]]] = {
    "CreateAgent": KEY_CHECK | ONCE | {"AgentsTable": {"GetItem", "PutItem"}},
    "ListAgents": KEY_CHECK | {"AgentsTable/index/by_workspace": {"Query"}},
    "GetAgent": KEY_CHECK | {"AgentsTable": {"GetItem"}},
    "UpdateAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "PutItem"}},
    "DeleteAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "DeleteItem"}},
    "ListVoices": KEY_CHECK,
    "CreateSession": KEY_CHECK
    | ONCE
    | SECRET
    | {"AgentsTable": {"GetItem"}, "SessionsTable": {"GetItem", "PutItem", "UpdateItem"}},
    "ListSessions": KEY_CHECK | {"SessionsTable/index/by_workspace": {"Query"}, "SessionsTable": {"BatchGetItem"}},
    "GetSession": KEY_CHECK | SECRET | {"SessionsTable": {"GetItem"}, "TranscriptsTable": {"Query"}},
    "DeleteSession": KEY_CHECK
    | {"SessionsTable": {"GetItem", "DeleteItem"}, "TranscriptsTable": {"Query", "DeleteItem"}},
    "CompleteSession": KEY_CHECK
    | ONCE
    | SECRET
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"PutItem", "Query", "UpdateItem"},
        "ExtractionQueue": {"SendMessage"},
    },
    "RerunExtraction": KEY_CHECK
    | SECRET
    | {
        "IdempotencyTable": {"UpdateItem"},
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
    },
    "PreviewExtraction": KEY_CHECK | SECRET | {"IdempotencyTable": {"UpdateItem"}},
    "SaveTranscript": KEY_CHECK
    | SECRET
    | {"SessionsTable": {"GetItem", "UpdateItem"}, "TranscriptsTable": {"PutItem", "Query"}},
    "RenewSession": KEY_CHECK
    | SECRET
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
    },
    "StopSession": KEY_CHECK | SECRET | {"SessionsTable": {"GetItem", "UpdateItem"}},
    "AddParticipant": KEY_CHECK | ONCE | SECRET | {"SessionsTable": {"GetItem"}},
    "ReceiveLivekitWebhook": SECRET | {"SessionsTable": {"UpdateItem"}},
    "ExtractResults": SECRET
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
        "ExtractionQueue": {"ChangeMessageVisibility", *POLLED},
    },
    "SweepSessions": SECRET
    | {
        "SessionsTable/index/by_due": {"Query"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"PutItem", "Query", "UpdateItem"},
        "ExtractionQueue": {"SendMessage"},
    },
    "CreateApiKey": {"ApiKeysTable": {"PutItem"}},
    "ListApiKeys": {"ApiKeysTable/index/by_workspace": {"Query"}},
    "RevokeApiKey": {"ApiKeysTable/index/by_workspace": {"Query"}, "ApiKeysTable": {"UpdateItem"}},
}
