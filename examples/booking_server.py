"""A server with the tools of booking.json: it finds free tables and books them, each call once."""

import json
import os
import sqlite3
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

Json = dict[str, Any]

PORT = int(os.environ.get("PORT", "9100"))
TIMES = ("18:00", "19:30", "21:00")
TABLES = {"T4": ("inside", 4), "T8": ("inside", 8), "T12": ("terrace", 6)}  # area and seats

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
database = sqlite3.connect(os.environ.get("DATABASE", ":memory:"))
database.execute("CREATE TABLE IF NOT EXISTS bookings (day, time, name, session, PRIMARY KEY (day, time, name))")
database.execute("CREATE TABLE IF NOT EXISTS answers (webhook_id PRIMARY KEY, status, answer)")


async def receive(request: web.Request) -> web.Response:
    """Answer a signed tool call."""
    try:
        event = webhook.verify(await request.read(), dict(request.headers))  # the body as it was received
    except (WebhookVerificationError, ValueError):  # ValueError: a malformed signature
        return web.Response(status=401)
    if event["type"] != "tool.call":
        return web.Response(status=204)  # a test of the endpoint
    call = event["data"]
    status, answer = answer_once(request.headers["webhook-id"], call)
    print(call["name"], json.dumps(call["arguments"]), status, json.dumps(answer), flush=True)
    return web.json_response(answer, status=status)


def answer_once(webhook_id: str, call: Json) -> tuple[int, Json]:
    """Run a call, or return the answer that it got before: Pi Voice repeats a call after a lost connection."""
    with database:  # one transaction: the booking and the answer are both stored, or neither
        database.execute("BEGIN IMMEDIATE")
        known = database.execute("SELECT status, answer FROM answers WHERE webhook_id = ?", [webhook_id]).fetchone()
        if known:
            return known[0], json.loads(known[1])
        tool = TOOLS[call["name"]]
        status, answer = tool(call)
        database.execute("INSERT INTO answers VALUES (?, ?, ?)", [webhook_id, status, json.dumps(answer)])
    return status, answer


def find_slots(call: Json) -> tuple[int, Json]:
    """Return the times and areas with a free table."""
    wanted = call["arguments"]  # valid by the agent's schema: Pi Voice has checked them
    slots = [f"{time} {area}" for time, area, _ in free(wanted["day"], wanted["guests"])]
    return 200, {"free": list(dict.fromkeys(slots))}


def book_table(call: Json) -> tuple[int, Json]:
    """Book a table, or return the one that this call has booked for the same time."""
    wanted, session = call["arguments"], call["session_id"]
    query = "SELECT name FROM bookings WHERE session = ? AND day = ? AND time = ?"
    booked = database.execute(query, [session, wanted["day"], wanted["time"]]).fetchone()
    if booked:  # an agent that has lost its connection may call again, which is another call
        return 200, {"table": booked[0]}
    for time, area, name in free(wanted["day"], wanted["guests"]):
        if (time, area) == (wanted["time"], wanted["area"]):
            database.execute("INSERT INTO bookings VALUES (?, ?, ?, ?)", [wanted["day"], time, name, session])
            return 200, {"table": name}
    return 409, {"error": "No such table is free. Offer another time or area."}


def free(day: str, guests: int) -> list[tuple[str, str, str]]:
    """Return time, area and name of each free table with enough seats, the smallest first."""
    taken = set(database.execute("SELECT time, name FROM bookings WHERE day = ?", [day]))
    return [
        (time, area, name)
        for time in TIMES
        for name, (area, seats) in TABLES.items()
        if seats >= guests and (time, name) not in taken
    ]


TOOLS = {"find_slots": find_slots, "book_table": book_table}

app = web.Application()
app.router.add_post("/", receive)
listening = f"Tools on http://127.0.0.1:{PORT}/"
web.run_app(app, host="127.0.0.1", port=PORT, print=lambda _: print(listening, flush=True))
