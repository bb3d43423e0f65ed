"""Two callers of the Live API: one with a bare WebSocket, and one with Google's own SDK."""

import asyncio
import base64
import json
import ssl
import struct
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

import aiohttp
from google import genai
from google.genai import errors, types
from google.genai.live import AsyncSession

from local.audio_watermark import WatermarkReader
from local.pacing import Pacer
from local.speech import SAMPLE_BYTES, Speech, Voice, pieces, samples_of, silence

Message = dict[str, Any]

RATE_IN: Final = 16_000
RATE_OUT: Final = 24_000
PATIENCE_SECONDS: Final = 120.0
MIME: Final = "audio/pcm;rate=16000"

_URL_SAFE: Final = str.maketrans("+/", "-_")
"""Translation to URL-safe base64, which the SDK uses for bytes."""


@dataclass
class Turn:
    """The messages of one turn of the agent in order, including the transcription of the caller."""

    messages: list[Message] = field(default_factory=list)

    def content(self, name: str) -> list[Any]:
        """Return the values of one field of serverContent."""
        return [message["serverContent"][name] for message in self.messages if name in message.get("serverContent", {})]

    @property
    def fragments(self) -> list[str]:
        return [transcription["text"] for transcription in self.content("outputTranscription")]

    @property
    def text(self) -> str:
        return "".join(self.fragments)

    @property
    def heard(self) -> str:
        return "".join(transcription["text"] for transcription in self.content("inputTranscription"))

    @property
    def pcm(self) -> bytes:
        parts = [part["inlineData"] for turn in self.content("modelTurn") for part in turn["parts"]]
        assert all(part["mimeType"] == f"audio/pcm;rate={RATE_OUT}" for part in parts)
        return b"".join(base64.urlsafe_b64decode(part["data"].translate(_URL_SAFE)) for part in parts)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_BYTES / RATE_OUT

    @property
    def words(self) -> str:
        """The words that the audio itself carries."""
        return "".join(WatermarkReader().read(samples_of(self.pcm)))

    @property
    def handle(self) -> str:
        """The resumption handle, empty if there is none."""
        updates = [message.get("sessionResumptionUpdate", {}) for message in self.messages]
        return "".join(update["newHandle"] for update in updates if update.get("resumable"))

    @property
    def calls(self) -> list[Message]:
        """The function calls."""
        return [call for message in self.messages for call in message.get("toolCall", {}).get("functionCalls", [])]

    @property
    def canceled(self) -> list[str]:
        """The ids of the canceled function calls."""
        return [each for message in self.messages for each in message.get("toolCallCancellation", {}).get("ids", [])]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the messages, in order."""
        return [
            name
            for message in self.messages
            for key, value in message.items()
            for name in (value if key == "serverContent" else [key])
        ]


class Caller(Protocol):
    """The methods of both callers."""

    async def type(self, text: str) -> None: ...

    async def say(self, text: str) -> None: ...

    async def turn(self) -> Turn: ...


def spoken(text: str, rest: float = 0.8) -> bytes:
    """Return a text as microphone audio, followed by the silence that ends a turn."""
    words = Speech(RATE_IN, Voice(pitch=260), espeak=None).say(text)
    return b"".join(word.pcm for word in words) + silence(RATE_IN, rest)


def audio_message(pcm: bytes, mime: str = MIME) -> Message:
    return {"realtimeInput": {"audio": {"data": base64.b64encode(pcm).decode(), "mimeType": mime}}}


def audio_messages(pcm: bytes) -> list[Message]:
    return [audio_message(piece) for piece in pieces(pcm, RATE_IN, 0.03)]


class BareCaller:
    """Uses the protocol directly, as a browser does."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.token = ""

    async def send(self, message: object) -> None:
        await self.socket.send_json(message)

    async def receive(self) -> Message:
        frame = await self.socket.receive(PATIENCE_SECONDS)
        assert frame.type is aiohttp.WSMsgType.BINARY, frame
        message: Message = json.loads(frame.data)
        return message

    async def hangup(self) -> tuple[int, str]:
        """Skip further messages, and return the close code and the reason."""
        while (frame := await self.socket.receive(PATIENCE_SECONDS)).type is aiohttp.WSMsgType.BINARY:
            pass
        assert frame.type is aiohttp.WSMsgType.CLOSE, frame
        return frame.data, str(frame.extra)

    async def type(self, text: str) -> None:
        await self.send({"realtimeInput": {"text": text}})

    async def say(self, text: str) -> None:
        await self.sound(spoken(text))

    async def answer(self, call: Message, response: object = None, **fields: object) -> None:
        """Answer a function call."""
        answer = {"id": call["id"], "name": call["name"], "response": response or {"ok": True}, **fields}
        await self.send({"toolResponse": {"functionResponses": [answer]}})

    async def sound(self, pcm: bytes) -> None:
        for message in audio_messages(pcm):
            await self.send(message)

    async def turn(self) -> Turn:
        """Receive the agent's messages until its turn is complete, with the late text and the handle after it."""
        turn = await self.until("turnComplete")
        while not turn.handle:
            turn.messages.append(await self.receive())
        return turn

    async def until(self, kind: str) -> Turn:
        """Receive the agent's messages up to the first of one kind."""
        turn = Turn()
        while kind not in turn.kinds:
            turn.messages.append(await self.receive())
        return turn

    async def handle(self) -> str:
        """Wait for the end of a turn, and return its resumption handle."""
        return (await self.turn()).handle


class SdkCaller:
    """Uses google-genai's live client."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def calling(
        cls, url: str, token: str, model: str, trusting: ssl.SSLContext, api_version: str = "v1alpha"
    ) -> AsyncIterator[Self]:
        ours = {"ssl": trusting, "open_timeout": PATIENCE_SECONDS, "ping_interval": None}
        options = types.HttpOptions(base_url=url, api_version=api_version, async_client_args=ours)
        client = genai.Client(api_key=token, http_options=options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.ExperimentalWarning)  # google-genai warns for every ephemeral token
            config = types.LiveConnectConfig(session_resumption=types.SessionResumptionConfig())
            async with client.aio.live.connect(model=model.removeprefix("models/"), config=config) as session:
                yield cls(session)
        await client.aio.aclose()
        client.close()

    async def type(self, text: str) -> None:
        await self._session.send_realtime_input(text=text)

    async def say(self, text: str) -> None:
        for piece in pieces(spoken(text), RATE_IN, 0.03):
            await self._session.send_realtime_input(audio=types.Blob(data=piece, mime_type=MIME))

    async def send_turn(self, text: str) -> None:
        """Send a whole turn as text, as in a chat client."""
        await self._session.send_client_content(turns=types.Content(role="user", parts=[types.Part(text=text)]))

    async def answer(self, call: Message, response: Message, **fields: object) -> None:
        """Answer a function call."""
        answer = types.FunctionResponse.model_validate(
            {"id": call["id"], "name": call["name"], "response": response, **fields}
        )
        await self._session.send_tool_response(function_responses=answer)

    async def turn(self) -> Turn:
        """Receive the agent's messages until its turn is complete, with the late text and the handle after it."""
        turn = await self.until("turnComplete")
        while not turn.handle:
            turn.messages += (await self.until("sessionResumptionUpdate")).messages
        return turn

    async def until(self, kind: str) -> Turn:
        """Receive the agent's messages up to the first of one kind."""
        turn = Turn()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while kind not in turn.kinds:
                async for message in self._session.receive():
                    turn.messages.append(self._as_sent(message))
                    if kind in turn.kinds:
                        break
        return turn

    def _as_sent(self, message: types.LiveServerMessage) -> Message:
        return message.model_dump(mode="json", by_alias=True, exclude_none=True)


class Sent:
    """The server's side of a connection, which keeps what is sent.

    The first turns go as far as the first sound and stop there, as many as are `held`.
    """

    def __init__(self, held: int = 0) -> None:
        self.turn = Turn()
        self.is_over = asyncio.Event()
        self.has_sounded = asyncio.Event()
        self._held = held

    async def send(self, message: Message) -> None:
        self.turn.messages.append(message)
        content = message.get("serverContent", {})
        if "modelTurn" in content:
            self.has_sounded.set()
        if content.get("turnComplete"):
            self.is_over.set()

    async def go_away(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def new_handle(self, *_: object) -> str:
        return "h"

    def pacer(self) -> Pacer:
        self._held -= 1
        return Pacer(1_000 if self._held < 0 else 1e-6)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1_000)


def unmarked(pcm: bytes) -> bytes:
    """Return audio with the watermark destroyed, as by a microphone."""
    return struct.pack(f"<{len(pcm) // SAMPLE_BYTES}h", *(sample & ~1 for sample in samples_of(pcm)))
