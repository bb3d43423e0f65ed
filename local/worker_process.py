"""The process of one worker: import a function's handler as Lambda does, and call it with one event at a time.

`workers.py` starts this file by its path, with the function's environment and module path, so it uses the standard
library only. Standard output stays free for the function's logs: the processes communicate over a socket, in frames
of one letter, the payload's length (4 bytes, big-endian) and JSON.

    to the worker   F (metadata of an invocation), then E (its event)
    from the worker R (ready), A (answer), or X (error, instead of either)
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
    """Lambda's context object, with Lambda's attribute names."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.aws_request_id: str = metadata["request_id"]
        self.invoked_function_arn: str = metadata["arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline: float = metadata["deadline"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the remaining time of the function's timeout, in milliseconds."""
        return max(0, int((self._deadline - time.time()) * 1000))


def main() -> None:
    """Serve the socket with the file descriptor of the first argument, with the handler that the second one names."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, frames), daemon=True).start()
    try:
        handler = _import(sys.argv[2])
    except Exception as error:  # noqa: BLE001 (an import may raise anything)
        _send(channel, b"X", _described(error))
        return
    _send(channel, b"R", b"null")
    while True:
        metadata, event = json.loads(frames.get()), json.loads(frames.get())
        if metadata["trace_id"]:
            os.environ["_X_AMZN_TRACE_ID"] = metadata["trace_id"]
        try:
            kind, answer = b"A", _json(handler(event, Context(metadata)))
        except Exception as error:  # noqa: BLE001 (a handler may raise anything, or return what is not JSON)
            kind, answer = b"X", _described(error)
        _send(channel, kind, answer)


def _import(name: str) -> Handler:
    module, _, function = name.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return handler


def _listen(channel: socket.socket, frames: "queue.SimpleQueue[bytes]") -> None:
    """Queue incoming frames, and exit as soon as the parent's end of the socket is closed."""
    try:
        with channel.makefile("rb") as stream:
            while header := stream.read(HEADER.size):
                _, length = HEADER.unpack(header)
                frame = stream.read(length)
                if len(frame) == length:  # an incomplete frame is dropped
                    frames.put(frame)
    finally:  # the socket is reset, not closed, if the parent left data unread
        os._exit(0)


def _send(channel: socket.socket, kind: bytes, payload: bytes) -> None:
    try:
        channel.sendall(HEADER.pack(kind, len(payload)) + payload)
    except OSError:  # the parent is gone, and the listening thread has not noticed yet
        os._exit(0)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _described(error: Exception) -> bytes:
    """Print an exception's traceback, and return Lambda's description of the error for the caller."""
    traceback.print_exception(error)
    details = {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }
    return json.dumps(details).encode()


if __name__ == "__main__":
    main()
