"""Gemini's messages: play the audio, collect the transcript, and store the resumption handle."""

import asyncio
import base64
from typing import Any, Final

from demo.clock import CallClock
from demo.live_connection import Message
from demo.recording import Recording
from demo.transcript import Transcript
from local.speech import seconds_of

RATE: Final = 24_000
"""Sample rate of Gemini's audio output, in hertz."""


class ServerMessages:
    """Handles the messages of one call; audio counts as heard when it would have been played, not when it arrives."""

    def __init__(self, transcript: Transcript, clock: CallClock, recording: Recording) -> None:
        self._transcript = transcript
        self._clock = clock
        self._recording = recording
        self._speaks = False
        self._begun = asyncio.Event()
        self._complete = asyncio.Event()
        self._is_cut = False
        self._heard_until = 0.0
        self._handle: str | None = None
        self._must_reconnect = False

    # ---- The agent's turns ----

    def expect_turn(self) -> None:
        """Reset the state of the agent's turn, before the caller speaks."""
        self._begun.clear()
        self._complete.clear()

    async def turn_begun(self) -> None:
        """Wait until the agent's turn has begun."""
        await self._begun.wait()

    async def turn_heard(self) -> None:
        """Wait until the agent's turn is complete and all its audio would have been played."""
        await self._complete.wait()
        await self._clock.sleep(self._heard_until - self._clock.now())

    # ---- Reconnecting ----

    @property
    def should_reconnect(self) -> bool:
        """Whether this connection is about to end and the call can be resumed over another one."""
        return self._must_reconnect and self._handle is not None

    def take_handle(self) -> str | None:
        """Return the resumption handle and forget it; None if there is none."""
        handle, self._handle, self._must_reconnect = self._handle, None, False
        return handle

    # ---- Messages ----

    def take(self, message: Message) -> None:
        """Handle one message."""
        if content := message.get("serverContent"):
            self._take_content(content)
        if update := message.get("sessionResumptionUpdate"):
            self._handle = update.get("newHandle") if update.get("resumable") else None
        if "goAway" in message:
            self._must_reconnect = True

    def _take_content(self, content: dict[str, Any]) -> None:
        if transcription := content.get("inputTranscription"):
            self._transcript.add("user", transcription.get("text", ""))
        if transcription := content.get("outputTranscription"):
            self._begin()
            self._transcript.add("agent", transcription.get("text", ""))
        for part in content.get("modelTurn", {}).get("parts", ()):
            if audio := part.get("inlineData"):
                self._begin()
                self._play(base64.b64decode(audio["data"]))
        if content.get("interrupted"):
            self._is_cut, self._heard_until = True, self._clock.now()
            self._recording.forget_agent_from(self._heard_until)
        if content.get("turnComplete"):
            self._end()

    def _play(self, pcm: bytes) -> None:
        start = max(self._heard_until, self._clock.now())
        self._recording.add("agent", start, RATE, pcm)
        self._heard_until = start + seconds_of(pcm, RATE)

    def _begin(self) -> None:
        self._begun.set()
        if not self._speaks:
            self._speaks = True
            self._transcript.begin("agent")

    def _end(self) -> None:
        self._transcript.end_agents_turn(is_cut=self._is_cut)
        if self._is_cut:
            self._begun.clear()
        else:
            self._complete.set()
        self._speaks = self._is_cut = False
