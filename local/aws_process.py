"""The process of the DynamoDB and SQS stand-in: moto, one request at a time.

Moto reads the service from the request's signature. It rolls back whole tables when a transaction fails, so threads
would lose each other's writes. Standard input is a pipe from the parent: this process exits when the pipe closes,
even if the parent was killed.
"""

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    """Serve the listening socket whose number is the first argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listener = int(sys.argv[1])
    make_server("127.0.0.1", 0, Moto(), request_handler=MotoRequestHandler, fd=listener).serve_forever()


class Moto:
    """Moto as a WSGI application with idempotent transactions.

    DynamoDB recognizes a repeated transaction by its ClientRequestToken; moto alone does not.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._done: dict[str, tuple[Any, list[bytes]]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        if not environ.get("HTTP_X_AMZ_TARGET", "").endswith(".TransactWriteItems"):
            return list(self._moto(environ, start_response))
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(body)
        token = json.loads(body).get("ClientRequestToken")
        if token in self._done:
            head, answer = self._done[token]
        else:
            started: list[Any] = []
            answer = list(self._moto(environ, lambda *head: started.append(head)))
            [head] = started
            if token and head[0].startswith("200"):
                self._done[token] = head, answer
        start_response(*head)
        return answer


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
