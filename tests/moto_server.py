"""AWS for tests: moto behind HTTP in this process, one request at a time, and open to listeners."""

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
"""Hears of a request before it is done: its operation and its parameters."""

VARIABLES: Final = ("DYNAMODB", "SQS", "SSM", "SECRETS_MANAGER")


class MotoServer:
    """A running moto."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self._moto = Moto()
        # A condition and its write are two steps to moto, and its transactions roll whole tables back.
        self._turn = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True, request_handler=MotoRequestHandler)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["MotoServer"]:
        """Run a moto that knows nothing of what was there before."""
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
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def variables(self) -> dict[str, str]:
        """What leads boto3 and ourselves to it."""
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
