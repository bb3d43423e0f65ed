"""TLS for servers on loopback, with a certificate from a CA that exists for one test."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from local.http_server import HOST


@dataclass(frozen=True, slots=True)
class LoopbackTls:
    """The server's TLS context, and the file of the CA that a client has to trust."""

    server: ssl.SSLContext
    ca_file: Path


def loopback_tls(folder: Path) -> LoopbackTls:
    """Issue a certificate for loopback and write its CA's certificate to a folder."""
    ca, ca_file = trustme.CA(), folder / "ca.pem"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(server)
    ca.cert_pem.write_to_path(str(ca_file))
    return LoopbackTls(server, ca_file)
