"""HTTP clients in a separate process, each of which sends one request after the other.

python -m bench.clients <url> <method> <key> <clients> <seconds>        < body
"""

import asyncio
import json
import sys
import time

import aiohttp


async def main() -> None:
    """Print JSON: the seconds, the milliseconds of each request, and the refusals."""
    url, method, key, clients, seconds = sys.argv[1:]
    body = sys.stdin.read() or None
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    milliseconds: list[float] = []
    refused: list[str] = []
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        started = time.perf_counter()
        ends = started + float(seconds)

        async def client() -> None:
            while (asked := time.perf_counter()) < ends:
                async with http.request(method, url, data=body) as answer:
                    text = await answer.text()
                milliseconds.append((time.perf_counter() - asked) * 1000)
                if not answer.ok:
                    refused.append(f"{answer.status} {text[:200]}")

        await asyncio.gather(*(client() for _ in range(int(clients))))
        took = time.perf_counter() - started
    print(json.dumps({"seconds": took, "milliseconds": milliseconds, "refused": refused[:3]}))


asyncio.run(main())
