"""The container's part of the relay: forward connections on a port to the Unix socket named after the port.

    relay_process.py <folder> <port>...

It prints its address once it listens, and exits when its standard input closes, so also when its parent is killed.
It runs unchanged in an image that has only Python, and containers.py, the other part of the relay, imports it.
"""

import asyncio
import socket
import sys
from functools import partial
from pathlib import Path

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pipe(one: Streams, other: Streams) -> None:
    """Copy data in both directions until both sides have finished, or one of them disconnects."""
    try:
        await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))
    except ConnectionError:
        pass  # closing the streams informs the other side
    finally:
        one[1].close()
        other[1].close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(65_536):
        sink.write(piece)
        await sink.drain()
    sink.write_eof()


async def forward_to_socket(socket_path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one connection to a Unix socket."""
    await pipe((reader, writer), await asyncio.open_unix_connection(socket_path))


async def _serve(folder: Path, ports: list[str]) -> None:
    address = socket.gethostbyname(socket.gethostname())
    for port in ports:
        await asyncio.start_server(partial(forward_to_socket, folder / port), address, int(port))
    print(address, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2:]))
