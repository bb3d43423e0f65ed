"""Outgoing webhooks: record the dispatch of an event to none, one and three endpoints, and its delivery."""

import json
from typing import TYPE_CHECKING, Any, Final

from bench.builds import CannotMeasure
from events.samples import ENDPOINT_ID, SESSION_ID, event
from local import sqs
from local.sample_call import SampleCall, webhook

if TYPE_CHECKING:
    from bench.world import World

DISPATCH: Final = {0: "DispatchEvents, no endpoint", 1: "DispatchEvents", 3: "DispatchEvents, 3 endpoints"}
"""The name of each record by the number of subscribed endpoints. Each is of one event."""

DELIVER: Final = "DeliverEvent"
DELIVER_ALL: Final = "DeliverEvent, with transcript and results"
"""The names of the records of a successful try, of which the second is of an endpoint that wants all of a session."""

Json = Any


def record(world: "World") -> None:
    """Record what follows from events, and turns that are saved in a call that LiveKit has reported as started."""
    call = _workspace(world, "webhooks")
    made = 0
    for endpoints, chapter in DISPATCH.items():
        for _ in range(endpoints - made):
            _make_endpoint(world, call, "session.started", ())
        made = endpoints
        session_id = _started(call)
        world.record(chapter, world.subject("DispatchEvents"), _message("DispatchEvents", {"session_id": session_id}))
        if endpoints == 1:
            world.record(DELIVER, world.subject("DeliverEvent"), _message("DeliverEvent", _queued(world, call)))
    recording = SampleCall(lambda name, of: world.record(name, world.subject(name), of), texts=call.texts)
    recording.request("SaveTranscript")

    call = _workspace(world, "webhooks-with-content")
    _make_endpoint(world, call, "session.completed", ("transcript", "results"))
    session_id = _started(call)
    call.request("CompleteSession")
    dispatch(world, session_id)
    world.record(DELIVER_ALL, world.subject("DeliverEvent"), _message("DeliverEvent", _queued(world, call)))


def dispatch(world: "World", session_id: str) -> None:
    """Dispatch what a session owes, as after each change of a call."""
    world.invoke("DispatchEvents", _message("DispatchEvents", {"session_id": session_id}))


def _workspace(world: "World", name: str) -> SampleCall:
    """Create a workspace with an agent."""
    call = SampleCall(world.invoke)
    call.operate("CreateApiKey", workspace=name)
    call.request("CreateAgent")
    return call


def _make_endpoint(world: "World", call: SampleCall, event_type: str, include: tuple[str, ...]) -> None:
    changes = {"url": world.receiver_url, "events": [event_type], "include": include}
    call.request("CreateWebhookEndpoint", changes=changes)


def _started(call: SampleCall) -> str:
    """Create a session, let a person join, and return its id; it owes one event."""
    call.request("CreateSession")
    session_id = call.texts[SESSION_ID]
    room_sid = call.request("GetSession")["data"]["livekit"]["room_sid"]
    call.invoke("ReceiveLivekitWebhook", webhook(session_id, "participant_joined", room_sid))
    return session_id


def _queued(world: "World", call: SampleCall) -> Json:
    """Return the message about the call's last endpoint that DispatchEvents has queued; raises CannotMeasure."""
    queues, url = sqs.client(world.around.sqs_url), world.subject("DispatchEvents").environment["DELIVERY_QUEUE_URL"]
    while messages := queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for each in messages:
            body = json.loads(each["Body"])
            if body["endpoint_id"] == call.texts[ENDPOINT_ID]:
                return body
    raise CannotMeasure("DispatchEvents has not queued a delivery.")


def _message(function: str, body: Json) -> Json:
    """Return the sample event of a queue's function with another message."""
    sample = event(function)
    sample["Records"][0]["body"] = json.dumps(body)
    return sample
