"""The process of one worker: imports a function's handler as Lambda does and calls it, one event at a time.

`workers.py` starts this file by its path, with the function's own environment and module path, so it uses the
standard library only. What the function prints goes to the terminal: the two processes talk over a socket, in
frames of one letter, the length of what follows (4 bytes, big-endian) and JSON.

    to the worker   F, the facts of an invocation, and then E, its event
    from the worker R, it is ready; A, the answer; X, what went wrong, instead of either
"""

import importlib
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct("!cI")

Handler = Callable[[Any, "Context"], Any]


class Context:
    """What Lambda tells a handler about an invocation, under Lambda's own names."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.aws_request_id: str = facts["request_id"]
        self.invoked_function_arn: str = facts["arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline: float = facts["deadline"]

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's timeout."""
        return max(0, int((self._deadline - time.time()) * 1000))


def main() -> None:
    """Serve the socket whose number is the first argument with the handler that the second one names."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, frames), daemon=True).start()
    try:
        handler = _import(sys.argv[2])
    except Exception as error:  # noqa: BLE001 (whatever a module raises when it is imported)
        _send(channel, b"X", _described(error))
        return
    _send(channel, b"R", b"null")
    while True:
        facts, event = json.loads(frames.get()), json.loads(frames.get())
        if facts["trace_id"]:
            os.environ["_X_AMZN_TRACE_ID"] = facts["trace_id"]
        try:
            kind, answer = b"A", _json(handler(event, Context(facts)))
        except Exception as error:  # noqa: BLE001 (whatever a handler raises, or returns that is not JSON)
            kind, answer = b"X", _described(error)
        _send(channel, kind, answer)


def _import(name: str) -> Handler:
    module, _, function = name.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return handler


def _listen(channel: socket.socket, frames: "queue.SimpleQueue[bytes]") -> None:
    """Pass on what arrives; once the other end is gone, however it went, this process ends at once."""
    try:
        with channel.makefile("rb") as stream:
            while header := stream.read(HEADER.size):
                _, length = HEADER.unpack(header)
                frame = stream.read(length)
                if len(frame) == length:  # what was cut short is nothing to work on
                    frames.put(frame)
    finally:  # a socket is reset, not ended, where the other end went with something of ours unread
        os._exit(0)


def _send(channel: socket.socket, kind: bytes, payload: bytes) -> None:
    try:
        channel.sendall(HEADER.pack(kind, len(payload)) + payload)
    except OSError:  # the other end is gone, which the other thread has yet to notice
        os._exit(0)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _described(error: Exception) -> bytes:
    """Show an exception in the terminal, and describe it as Lambda does to whoever invoked the function."""
    traceback.print_exception(error)
    details = {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }
    return json.dumps(details).encode()


if __name__ == "__main__":
    main()
