"""Write docs/responses/, the example responses of the reference, from a whole call with the samples: `make openapi`.

The functions run on the services of `make run`. Values that differ from call to call are replaced: ids, tokens, times,
addresses.
"""

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

from events.samples import AGENT_ID, ENDPOINT_ID, EVENT_ID, IDS, SAMPLES, SESSION_ID, WEBHOOK_HOST, event_file
from local.sample_call import SampleCall
from local.stack import running_services
from local.workers import Workers

Json = Any

_FOLDER: Final = Path(__file__).with_name("responses")
_NO_WEBHOOKS: Final = "http://127.0.0.1:9/"
_CREATED_AT: Final = 1795338930
_LONGEST_CALL_SECONDS: Final = 300
_MILLISECONDS: Final = 912
_ENVIRONMENT: Final = {"POWERTOOLS_LOG_LEVEL": "ERROR"}
_REPLACED: Final = (
    (r"ws://127\.0\.0\.1:\d+/ws/", "wss://generativelanguage.googleapis.com/ws/"),
    (r"ws://127\.0\.0\.1:\d+", "wss://your-project.livekit.cloud"),
    (r"(?<=^eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9)\..+", "..."),
    (r"(?<=^pi_sess_).+", "..."),
    (r"(?<=^whsec_).+", "..."),
    (r"^http://127\.0\.0\.1:9(?=/)", WEBHOOK_HOST),
    (r"(?<=^auth_tokens/).+", "..."),
    (r"^RM_(?!hycBMAjmt6Ub$).+", "RM_4vT9kQ2xYwZs"),  # the sample webhook's room is the same in every call
    (r"^stand-in$", "gemini-3.5-flash-lite"),
)
"""What is replaced in texts: patterns, each with its replacement."""


async def responses() -> dict[str, Json]:
    """Return the response of each route that has one, by function."""
    began = int(time.time())
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ} | _ENVIRONMENT
    loop = asyncio.get_running_loop()
    async with running_services(_NO_WEBHOOKS, environment) as around:
        workers = Workers(around.template.functions, around.machine)

        def invoke(function: str, event: Json) -> Json:
            return asyncio.run_coroutine_threadsafe(workers.invoke(function, event), loop).result()

        call = SampleCall(invoke)
        try:
            await asyncio.to_thread(call.hold)
        finally:
            await workers.stop()
    failed = [name for name, sample in SAMPLES.items() if call.statuses[name] != sample.status]
    if failed:
        sys.exit(f"These samples failed: {', '.join(failed)}")
    ids = {call.texts[sample]: sample for sample in (AGENT_ID, SESSION_ID, ENDPOINT_ID, EVENT_ID)}
    ids[f"{call.texts[EVENT_ID]}.{call.texts[ENDPOINT_ID]}"] = IDS["delivery_id"]
    documents = {function: call.documents[function] for function in SAMPLES}
    return {name: _settled(document, ids, began) for name, document in documents.items() if document is not None}


def _settled(value: Json, ids: dict[str, str], began: int, name: str = "") -> Json:
    """Replace what differs from call to call. An instant becomes the first one plus a multiple of five minutes."""
    if isinstance(value, dict):
        return {key: _settled(each, ids, began, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_settled(each, ids, began) for each in value]
    if isinstance(value, str):
        for pattern, replacement in _REPLACED:
            value = re.sub(pattern, replacement, value)
        return ids.get(value, value)
    if name.endswith("_at") and isinstance(value, int) and value >= began:
        later = value - began
        return _CREATED_AT + later - later % _LONGEST_CALL_SECONDS
    return _MILLISECONDS if name == "milliseconds" and value is not None else value


def main() -> None:
    """Write the responses; with --check, fail if they are not what the functions answer."""
    texts = {
        _FOLDER / event_file(name).name: json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        for name, document in asyncio.run(responses()).items()
    }
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    stale += set(_FOLDER.iterdir()) - texts.keys()
    if "--check" in sys.argv and stale:
        sys.exit(f"Run `make openapi` and commit it: {', '.join(path.name for path in stale)} would change.")
    for path in stale:
        if path in texts:
            path.write_text(texts[path], encoding="utf-8")
        else:
            path.unlink()


if __name__ == "__main__":
    main()
