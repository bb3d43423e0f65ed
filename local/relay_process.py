"""The container's half of the relay: what connects to a port here goes on to the Unix socket of that name.

    relay_process.py <folder> <port>...

It says its address when it listens, and ends with its standard input: so with whoever started it, in whatever way that
one ended. It is run as it stands by an image that has nothing but Python; containers.py, the other half, imports it.
"""

import asyncio
import socket
import sys
from functools import partial
from pathlib import Path

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pipe(one: Streams, other: Streams) -> None:
    """Pass on what each side says until both have said all, or one of them is gone."""
    try:
        await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))
    except ConnectionError:
        pass  # which closing tells the other side
    finally:
        one[1].close()
        other[1].close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(65_536):
        sink.write(piece)
        await sink.drain()
    sink.write_eof()


async def forward_to_socket(socket_path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead one connection to a Unix socket."""
    await pipe((reader, writer), await asyncio.open_unix_connection(socket_path))


async def _serve(folder: Path, ports: list[str]) -> None:
    address = socket.gethostbyname(socket.gethostname())
    for port in ports:
        await asyncio.start_server(partial(forward_to_socket, folder / port), address, int(port))
    print(address, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2:]))
