"""The process of the stand-in for DynamoDB and SQS: moto, one request at a time.

It tells the two apart by the service that a request is signed for. Its transactions roll whole tables back, so
threads would lose each other's writes. Our standard input is a pipe that the parent holds: once it is closed, however
the parent went, this process ends.
"""

import logging
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    """Serve the listening socket whose number is the first argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    listener = int(sys.argv[1])
    make_server("127.0.0.1", 0, app, request_handler=MotoRequestHandler, fd=listener).serve_forever()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
