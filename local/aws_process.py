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

from local.loopback import is_local

_REFUSED = b"Send this request from this machine, to 127.0.0.1 or localhost."


def main() -> None:
    """Serve the listening socket whose number is the first argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listener = int(sys.argv[1])
    make_server("127.0.0.1", 0, Moto(), request_handler=RequestHandler, fd=listener).serve_forever()


class RequestHandler(MotoRequestHandler):
    """Moto's request handler, whose error lines do not quote the request."""

    def log_error(self, *_: object) -> None:
        """Log a request that could not be read, without its text: a signature may be in its query."""
        self.log("error", "A request could not be read.")


class Moto:
    """Moto as a WSGI application with idempotent transactions, for this machine only.

    DynamoDB recognizes a repeated transaction by its ClientRequestToken; moto alone does not. Moto accepts every
    credential, and its CORS headers let every web page read the tables.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._done: dict[str, tuple[Any, list[bytes]]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        if not is_local(environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")):
            # With a length, because werkzeug may wait for the client to close before it closes the connection.
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(_REFUSED)))]
            start_response("403 Forbidden", headers)
            return [_REFUSED]
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
