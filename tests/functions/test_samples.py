"""A whole call in which each function gets its sample of events/."""

import pytest

from local.sample_call import STATUSES, SampleCall
from local.stand_ins import livekit
from tests.functions.api import Functions
from tests.support.template import FUNCTIONS, ROUTES, snake_case


@pytest.mark.usefixtures("work")  # a queue
def test_every_function_succeeds_with_its_sample(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_WEBHOOK_API_KEY", livekit.API_KEY)
    monkeypatch.setenv("LIVEKIT_WEBHOOK_API_SECRET", livekit.API_SECRET)
    functions.start_over()
    call = SampleCall(lambda name, event: functions.invoke(snake_case(name), event))

    call.hold()

    assert call.documents.keys() == FUNCTIONS.keys()
    assert call.statuses == STATUSES
    assert call.statuses.keys() == ROUTES.keys()
    assert call.documents["ExtractResults"] == {"batchItemFailures": []}
    assert not [name for name, document in call.documents.items() if document and "error" in document]
