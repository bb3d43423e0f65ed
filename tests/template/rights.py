"""What each function may do, by logical id: actions on tables, their indexes and the queue, and reading secrets.

tests/template holds the template to it, and tests/functions what the functions do.
"""

from collections.abc import Mapping

KEY_CHECK = {"ApiKeysTable": {"GetItem"}}
ONCE = {"IdempotencyTable": {"PutItem", "UpdateItem", "DeleteItem"}}
SECRET = " secret"
"""End of the name of a group of secrets, as a resource."""

POLLED = {"DeleteMessage", "GetQueueAttributes", "ReceiveMessage"}
"""What Lambda does in the worker's name, to give it the queue's messages."""


def secrets(*groups: str) -> dict[str, set[str]]:
    """The right to read these groups of secrets."""
    return {f"{group}{SECRET}": {"read"} for group in groups}


RIGHTS: Mapping[str, Mapping[str, set[str]]] = {
    "CreateAgent": KEY_CHECK | ONCE | {"AgentsTable": {"GetItem", "PutItem"}},
    "ListAgents": KEY_CHECK | {"AgentsTable/index/by_workspace": {"Query"}},
    "GetAgent": KEY_CHECK | {"AgentsTable": {"GetItem"}},
    "UpdateAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "PutItem"}},
    "DeleteAgent": KEY_CHECK | {"AgentsTable": {"GetItem", "DeleteItem"}},
    "ListVoices": KEY_CHECK,
    "CreateSession": KEY_CHECK
    | ONCE
    | secrets("LiveKit", "Gemini", "ClientTokens")
    | {"AgentsTable": {"GetItem"}, "SessionsTable": {"GetItem", "PutItem", "UpdateItem"}},
    "ListSessions": KEY_CHECK | {"SessionsTable/index/by_workspace": {"Query"}, "SessionsTable": {"BatchGetItem"}},
    "GetSession": KEY_CHECK | secrets("ClientTokens") | {"SessionsTable": {"GetItem"}, "TranscriptsTable": {"Query"}},
    "DeleteSession": KEY_CHECK
    | {"SessionsTable": {"GetItem", "PutItem"}, "TranscriptsTable": {"Query", "BatchWriteItem"}},
    "CompleteSession": KEY_CHECK
    | ONCE
    | secrets("LiveKit", "Gemini", "ClientTokens")
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"PutItem", "Query", "UpdateItem"},
        "ExtractionQueue": {"SendMessage"},
    },
    "RerunExtraction": KEY_CHECK
    | secrets("Gemini")
    | {
        "IdempotencyTable": {"UpdateItem"},
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
    },
    "PreviewExtraction": KEY_CHECK | secrets("Gemini") | {"IdempotencyTable": {"UpdateItem"}},
    "SaveTranscript": KEY_CHECK
    | secrets("ClientTokens")
    | {"SessionsTable": {"GetItem", "UpdateItem"}, "TranscriptsTable": {"PutItem", "Query"}},
    "RenewSession": KEY_CHECK
    | secrets("LiveKit", "Gemini", "ClientTokens")
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
    },
    "StopSession": KEY_CHECK | secrets("LiveKit", "ClientTokens") | {"SessionsTable": {"GetItem", "UpdateItem"}},
    "AddParticipant": KEY_CHECK | ONCE | secrets("LiveKit") | {"SessionsTable": {"GetItem"}},
    "ReceiveLivekitWebhook": secrets("LiveKitWebhook", "LiveKit") | {"SessionsTable": {"UpdateItem"}},
    "ExtractResults": secrets("Gemini")
    | {
        "AgentsTable": {"GetItem"},
        "SessionsTable": {"GetItem", "UpdateItem"},
        "TranscriptsTable": {"Query"},
        "ExtractionQueue": {"ChangeMessageVisibility", *POLLED},
    },
    "SweepSessions": secrets("LiveKit")
    | {
        "SessionsTable/index/by_due": {"Query"},
        "SessionsTable": {"DeleteItem", "GetItem", "UpdateItem"},
        "TranscriptsTable": {"BatchWriteItem", "PutItem", "Query", "UpdateItem"},
        "ExtractionQueue": {"SendMessage"},
    },
    "CreateApiKey": {"ApiKeysTable": {"PutItem"}},
    "ListApiKeys": {"ApiKeysTable/index/by_workspace": {"Query"}},
    "RevokeApiKey": {"ApiKeysTable/index/by_workspace": {"Query"}, "ApiKeysTable": {"UpdateItem"}},
}
