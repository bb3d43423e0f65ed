"""The stand-in for AWS services without an endpoint in the environment: moto, in its own process."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from botocore.config import Config

from local.http_server import address, listen
from local.template import ACCOUNT

CLIENT_CONFIG: Final = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})
"""Timeouts and retries of the local stack's own AWS clients."""

_ROOT: Final = Path(__file__).parent.parent


@asynccontextmanager
async def aws_stand_in() -> AsyncIterator[str]:
    """Start moto and yield its URL, which accepts requests immediately and answers them once moto is ready."""
    with listen(0) as listener:
        url = address(listener)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "local.aws_process",
            str(listener.fileno()),
            cwd=_ROOT,
            pass_fds=[listener.fileno()],
            stdin=PIPE,
            env={"MOTO_ACCOUNT_ID": ACCOUNT},  # without the user's AWS settings
            start_new_session=True,  # so Ctrl-C reaches the parent only
        )
    try:
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
