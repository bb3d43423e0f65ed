"""AWS for tests: moto behind HTTP in this process, one request at a time, with listeners."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from local.aws_process import Moto

Listener = Callable[[str, dict[str, Any]], None]
"""Called with the operation and the parameters of a request before it is executed."""

VARIABLES: Final = ("DYNAMODB", "SQS", "SSM", "SECRETS_MANAGER")


class MotoServer:
    """A running moto."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self._moto = Moto()
        # In moto a condition and its write are two steps, and its transactions roll back whole tables.
        self._turn = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True, request_handler=MotoRequestHandler)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["MotoServer"]:
        """Run a moto with empty state."""
        server = cls()
        thread = threading.Thread(target=server._server.serve_forever, daemon=True)
        thread.start()
        try:
            BackendDict.reset()
            reset_model_data()
            yield server
        finally:
            server._server.shutdown()
            server._server.server_close()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which boto3 and the product find it."""
        return {f"AWS_ENDPOINT_URL_{service}": self.url for service in VARIABLES}

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        _, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if operation:
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            arguments = json.loads(body)
            for listener in self.listeners:
                listener(operation, arguments)
        with self._turn:
            return list(self._moto(environ, start_response))
