"""AWS's own services: moto in a process of its own stands in for those that the user names no endpoint of."""

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
"""How our own clients wait."""

_PROGRAM: Final = Path(__file__).with_name("aws_process.py")


@asynccontextmanager
async def aws_stand_in() -> AsyncIterator[str]:
    """Run moto and yield its address, which takes requests at once and answers them when moto is up."""
    with listen(0) as listener:
        url = address(listener)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(_PROGRAM),
            str(listener.fileno()),
            pass_fds=[listener.fileno()],
            stdin=PIPE,
            env={"MOTO_ACCOUNT_ID": ACCOUNT},  # and nothing of the user's AWS profile
            start_new_session=True,  # Ctrl-C is for us alone
        )
    try:
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
