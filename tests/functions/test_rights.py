"""The rights of the functions: all that they do in DynamoDB, the template allows, and it allows nothing besides."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from pi_voice import wiring
from tests.functions.conftest import Api, Functions
from tests.functions.test_complete import ENDING
from tests.functions.test_webhook import Webhook, event
from tests.template.rights import RIGHTS

Uses = dict[str, set[str]]


class Watch:
    """Notes which actions functions take on which tables and indexes."""

    def __init__(self, functions: Functions) -> None:
        self.seen: dict[str, Uses] = {}
        self.before: Callable[[str], None] = lambda _: None
        self._functions = functions
        self._current = ""

    def during(self, function: str, work: Callable[[], Any]) -> Any:
        """Do something that one function works on, in a container of its own, so that nothing is remembered."""
        self._functions.start_over()
        self._current = function
        try:
            return work()
        finally:
            self._current = ""

    def note(self, params: Mapping[str, Any], model: Any, **_: object) -> None:
        """Take note of one request; a batch or a transaction needs the rights of what it consists of."""
        if not self._current:
            return
        match model.name:
            case "BatchGetItem":
                used = [(table, "BatchGetItem") for table in params["RequestItems"]]
            case "TransactWriteItems":
                parts = [part for item in params["TransactItems"] for part in item.items()]
                used = [
                    (part["TableName"], "ConditionCheckItem" if verb == "ConditionCheck" else f"{verb}Item")
                    for verb, part in parts
                ]
            case operation:
                index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
                used = [(params["TableName"] + index, operation)]
        for target, action in used:
            table, _, index = target.partition("/")
            resource = "/".join(filter(None, [self._logical_id(table), index]))
            self.seen.setdefault(self._current, {}).setdefault(resource, set()).add(action)
            self.before(f"{action} {resource}")

    @staticmethod
    def _logical_id(table: str) -> str:
        names = wiring.tables()
        return {
            names.agents: "AgentsTable",
            names.sessions: "SessionsTable",
            names.transcripts: "TranscriptsTable",
            names.api_keys: "ApiKeysTable",
        }[table]


@pytest.fixture
def watch(functions: Functions) -> Iterator[Watch]:
    watch = Watch(functions)
    boto3.setup_default_session()
    assert boto3.DEFAULT_SESSION
    boto3.DEFAULT_SESSION.events.register("provide-client-params.dynamodb", watch.note)
    yield watch
    boto3.setup_default_session()
    functions.start_over()


def test_functions_do_in_dynamodb_what_the_template_allows_and_all_of_it(
    functions: Functions, dynamodb: DynamoDBClient, watch: Watch, api: Api
) -> None:
    webhook = Webhook(functions)

    def sessions_with_an_end() -> dict[str, Any]:
        return api.session(api.agent(output_schema={"guests": "integer"}))

    def rival(step: str, session_id: str) -> None:
        """Complete the session in the moment in which another call has written its transcript."""
        if step == "UpdateItem SessionsTable":
            dynamodb.update_item(
                TableName=wiring.tables().sessions,
                Key={"session_id": {"S": session_id}},
                UpdateExpression="SET #status = :completed",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={":completed": {"S": "completed"}},
            )

    agent_id = watch.during("CreateAgent", api.agent)
    watch.during("ListAgents", lambda: api.get("/agents").json["data"])
    watch.during("GetAgent", lambda: api.get(f"/agents/{agent_id}").data)
    watch.during("UpdateAgent", lambda: api.patch(f"/agents/{agent_id}", {"name": "Bea"}).data)
    watch.during("ListVoices", lambda: api.get("/voices").json["data"])
    session = watch.during("CreateSession", lambda: api.session(agent_id))
    path = f"/sessions/{session['session_id']}"
    watch.during("AddParticipant", lambda: api.post(f"{path}/participants", identity="listener").data)
    facts = api.get(path).data["livekit"]
    for sid in (facts["room_sid"], "RM_another"):
        told = event("room_finished", {**session, "sid": sid})
        assert watch.during("ReceiveLivekitWebhook", partial(webhook.send, told)).status == 200
    ended = sessions_with_an_end()
    complete = f"/sessions/{ended['session_id']}/complete"
    assert watch.during("CompleteSession", lambda: api.post(complete, ENDING)).status == 200
    lost = sessions_with_an_end()
    watch.before = lambda step: rival(step, lost["session_id"])
    complete_lost = f"/sessions/{lost['session_id']}/complete"
    assert watch.during("CompleteSession", lambda: api.post(complete_lost, ENDING)).status == 409
    watch.before = lambda _: None
    watch.during("ListSessions", lambda: api.get("/sessions").json["data"])
    watch.during("GetSession", lambda: api.get(f"/sessions/{ended['session_id']}").data)
    assert watch.during("DeleteSession", lambda: api.delete(f"/sessions/{ended['session_id']}")).status == 204
    assert watch.during("DeleteAgent", lambda: api.delete(f"/agents/{agent_id}")).status == 204
    key = watch.during("CreateApiKey", lambda: functions.invoke("create_api_key", {"workspace": "w", "name": "k"}))
    watch.during("ListApiKeys", lambda: functions.invoke("list_api_keys", {"workspace": "w"})["data"])
    revoked = {"workspace": "w", "key_id": key["data"]["key_id"]}
    watch.during("RevokeApiKey", lambda: functions.invoke("revoke_api_key", revoked)["data"])

    assert watch.seen == {
        function: {resource: actions for resource, actions in rights.items() if resource != "the secret"}
        for function, rights in RIGHTS.items()
    }
