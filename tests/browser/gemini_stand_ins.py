"""The Gemini stand-in once for each set of faults, all with the same tokens, for tests in other languages.

`python -m tests.browser.gemini_stand_ins "" drop,resume_1011` prints its API key and the URL for each set of faults as
JSON, then READY, and serves until SIGINT.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack

from local.command import end_at_ctrl_c
from local.http_server import serving
from local.stand_ins.gemini import API_KEY, gemini_app
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import LIVE_FAULTS, live_faults
from local.stand_ins.gemini_tokens import Tokens


async def main(sets_of_faults: list[str]) -> None:
    end_at_ctrl_c()
    times, tokens = LiveTimes.of(os.environ), Tokens()
    async with AsyncExitStack() as running:
        urls = {
            faults: await running.enter_async_context(
                serving(gemini_app(tokens, API_KEY, times, faults=live_faults({LIVE_FAULTS: faults})))
            )
            for faults in sets_of_faults
        }
        sys.stdout.write(f"{json.dumps({'key': API_KEY, 'urls': urls})}\nREADY\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except asyncio.CancelledError:
        sys.exit()
