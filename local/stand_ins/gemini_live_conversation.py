"""The conversation over one Live connection, after its setup.

A turn of the agent is audio in real time, with transcription fragments ahead of the audio or behind it, as with Gemini.
The caller's voice or text during the agent's turn interrupts it.

    waiting ──the caller's turn──► speaking ──generationComplete, turnComplete──► waiting
                                      └─────the caller's voice or text: interrupted, turnComplete──► waiting
"""

import asyncio
import base64
import binascii
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from local.pacing import Pacer
from local.speech import SAMPLE_BYTES, Speech, SpokenWord, Voice, parts_of, pieces, seconds_of
from local.stand_ins.gemini_live_access import INVALID_ARGUMENT, Hangup
from local.stand_ins.gemini_live_agent import Interview, Reply, Script
from local.stand_ins.gemini_live_voice_activity import (
    RATE,
    SILENCE_SECONDS,
    Heard,
    SpeechEnded,
    SpeechStarted,
    VoiceActivityDetector,
    WordsHeard,
)
from local.stand_ins.gemini_messages import Message
from local.stand_ins.gemini_models import ends_turns_when_idle, tool_response_fault

ANSWER_RATE: Final = 24_000
PIECE_SECONDS: Final = 0.04
SETUP_FIRST: Final = "setup must be the first message and only the first"

_AUDIO_IN: Final = f"audio/pcm;rate={RATE}"
_AUDIO_OUT: Final = f"audio/pcm;rate={ANSWER_RATE}"
_WORDS_AHEAD: Final = (2, 1, 0, 0)
"""Words by which the transcription is ahead of the audio at the start of a word, in rotation; 1 is in step."""

_LOWEST_VOICE_HERTZ: Final = 110
_VOICES_HERTZ: Final = 120
_AUDIO_TOKENS_PER_SECOND: Final = 25
_LETTERS_PER_TOKEN: Final = 4
_ONE_KIND: Final = "Request must hold exactly one of setup, client_content, realtime_input and tool_response."
_NO_CHUNKS: Final = "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."
_NO_ACTIVITY: Final = "Explicit activity control is not supported when automatic activity detection is enabled."
_NO_AUDIO: Final = f"The stand-in takes {_AUDIO_IN} only, in whole samples of 16 bits, as base64."


class Connection(Protocol):
    """The part of a connection that a conversation uses."""

    async def send(self, message: Message) -> None:
        """Send one message to the client."""

    def new_handle(self, interview: Interview) -> str:
        """Return a resumption handle for the current state of a call."""

    def pacer(self) -> Pacer:
        """Return a pacer for the audio of one turn."""


class Conversation:
    """Talks to a caller as the agent of a setup; sends resumption handles if the setup asks for them."""

    def __init__(
        self, setup: Message, interview: Interview | None, connection: Connection, tasks: asyncio.TaskGroup
    ) -> None:
        self._setup = setup
        self._interview = interview or Interview.of(_instruction(setup))
        self._connection = connection
        self._tasks = tasks
        self._detector = VoiceActivityDetector(_silence_seconds(setup))
        self._speech = Speech(ANSWER_RATE, _voice(setup, self._interview.script))
        self._usage = _Usage()
        self._late_words = ""
        self._turn: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._said = ""

    async def receive(self, message: Message) -> None:
        """Handle one message of the client; raises Hangup."""
        if len(message) != 1:
            raise Hangup(INVALID_ARGUMENT, _ONE_KIND)
        match message:
            case {"setup": _}:
                raise Hangup(INVALID_ARGUMENT, SETUP_FIRST)
            case {"realtimeInput": content}:
                await self._take_realtime_input(content)
            case {"clientContent": content}:
                await self._take_client_content(content)
            case {"toolResponse": content}:
                if fault := tool_response_fault(self._setup, content):
                    raise Hangup(INVALID_ARGUMENT, fault)

    async def stop(self) -> None:
        """Stop the agent's turn."""
        if self._turn:
            self._turn.cancel()
            await asyncio.wait([self._turn])

    # ---- The caller's input ----

    async def _take_realtime_input(self, content: Message) -> None:
        if "mediaChunks" in content:
            raise Hangup(INVALID_ARGUMENT, _NO_CHUNKS)
        if content.keys() & {"activityStart", "activityEnd"}:
            raise Hangup(INVALID_ARGUMENT, _NO_ACTIVITY)
        if "audio" in content:
            pcm = _pcm(content["audio"])
            self._usage.heard_seconds += seconds_of(pcm, RATE)
            await self._hear(self._detector.listen(pcm))
        if content.get("audioStreamEnd"):
            await self._hear(self._detector.end())
        if "text" in content:
            self._usage.read_letters += len(content["text"])
            await self._answer()

    async def _take_client_content(self, content: Message) -> None:
        parts = [part for turn in content.get("turns", []) for part in turn.get("parts", [])]
        self._usage.read_letters += sum(len(part.get("text", "")) for part in parts)
        is_history = self._setup.get("historyConfig", {}).get("initialHistoryInClientContent", False)
        if content.get("turnComplete") and not is_history:
            await self._answer()

    async def _hear(self, heard: Iterable[Heard]) -> None:
        for what in heard:
            match what:
                case SpeechStarted():
                    await self._interrupt()
                case WordsHeard(text):
                    await self._transcribe_late_words()
                    self._late_words = text
                case SpeechEnded(text, seconds):
                    self._late_words = self._late_words if text else f"[{seconds:.1f} s of speech]"
                    await self._answer()

    async def _transcribe_late_words(self) -> None:
        """Send the caller's latest words, which Gemini often does only after the answer has begun."""
        await self._transcribe("input", self._late_words)
        self._late_words = ""

    # ---- The agent's turns ----

    async def _answer(self) -> None:
        await self._interrupt()
        self._reply, self._said = self._interview.reply(), ""
        self._turn = self._tasks.create_task(self._speak(self._reply))

    async def _interrupt(self) -> None:
        """Interrupt the agent's turn, even in the middle of a word."""
        if self._reply is None:
            return
        await self.stop()
        await self._transcribe_late_words()
        await self._connection.send({"serverContent": {"interrupted": True}})
        await self._end_turn(self._reply.cut_after(self._said))

    async def _speak(self, reply: Reply) -> None:
        if self._is_resumable:
            await self._connection.send({"sessionResumptionUpdate": {"resumable": False}})
        pacer, words = self._connection.pacer(), self._speech.say(reply.text)
        parts, transcribed, spoken = parts_of(reply.text), 0, 0
        while word := await asyncio.to_thread(next, words, None):
            due = max(transcribed, spoken + _WORDS_AHEAD[spoken % len(_WORDS_AHEAD)])
            await self._transcribe("output", "".join(parts[transcribed:due]))
            await self._sound(word, pacer)
            if self._said.rstrip() == reply.text[: reply.question_at] != reply.text:
                await self._report_more_to_come()
            transcribed, spoken = due, spoken + 1
        await self._transcribe("output", "".join(parts[transcribed:]))
        await self._connection.send({"serverContent": {"generationComplete": True}})
        await self._end_turn(reply.with_question)

    async def _sound(self, word: SpokenWord, pacer: Pacer) -> None:
        for piece in pieces(word.pcm, ANSWER_RATE, PIECE_SECONDS):
            await pacer.reach(self._usage.spoken_seconds)
            blob = {"mimeType": _AUDIO_OUT, "data": base64.b64encode(piece).decode()}
            await self._connection.send({"serverContent": {"modelTurn": {"parts": [{"inlineData": blob}]}}})
            self._usage.spoken_seconds += seconds_of(piece, ANSWER_RATE)
            await self._transcribe_late_words()
        self._said += word.text

    async def _end_turn(self, interview: Interview) -> None:
        self._interview, self._reply = interview, None
        usage, self._usage.spoken_seconds = self._usage.message, 0.0
        status = {"interactionStatus": "IDLE"} if ends_turns_when_idle(self._setup) else {}
        await self._connection.send({"serverContent": {"turnComplete": True, **status}, "usageMetadata": usage})
        if self._is_resumable:
            handle = self._connection.new_handle(interview)
            await self._connection.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

    async def _report_more_to_come(self) -> None:
        """Send the turnComplete that does not end the turn of a model with an interaction status."""
        if ends_turns_when_idle(self._setup):
            status = {"turnComplete": True, "interactionStatus": "IN_PROGRESS"}
            await self._connection.send({"serverContent": status})

    async def _transcribe(self, what: str, text: str) -> None:
        if text and f"{what}AudioTranscription" in self._setup:
            await self._connection.send({"serverContent": {f"{what}Transcription": {"text": text}}})

    @property
    def _is_resumable(self) -> bool:
        return "sessionResumption" in self._setup


@dataclass(slots=True)
class _Usage:
    """Usage: the input of the conversation so far, and the output of the current turn."""

    heard_seconds: float = 0.0
    read_letters: int = 0
    spoken_seconds: float = 0.0

    @property
    def message(self) -> Message:
        heard, read = round(self.heard_seconds * _AUDIO_TOKENS_PER_SECOND), self.read_letters // _LETTERS_PER_TOKEN
        spoken = round(self.spoken_seconds * _AUDIO_TOKENS_PER_SECOND)
        return {
            "promptTokenCount": heard + read,
            "responseTokenCount": spoken,
            "totalTokenCount": heard + read + spoken,
            "promptTokensDetails": [
                {"modality": "AUDIO", "tokenCount": heard},
                {"modality": "TEXT", "tokenCount": read},
            ],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": spoken}],
        }


def _pcm(blob: Message) -> bytes:
    """Decode the audio of a blob, in standard or URL-safe base64, with or without padding."""
    form, data = "".join(blob.get("mimeType", "").lower().split()), blob.get("data", "")
    try:
        pcm = base64.b64decode(data.rstrip("=") + "=" * (-len(data.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        pcm = None
    if form != _AUDIO_IN or pcm is None or len(pcm) % SAMPLE_BYTES:
        raise Hangup(INVALID_ARGUMENT, _NO_AUDIO)
    return pcm


def _instruction(setup: Message) -> str:
    return "\n".join(part.get("text", "") for part in setup.get("systemInstruction", {}).get("parts", []))


def _silence_seconds(setup: Message) -> float:
    detection = setup.get("realtimeInputConfig", {}).get("automaticActivityDetection", {})
    return float(detection.get("silenceDurationMs", SILENCE_SECONDS * 1000)) / 1000


def _voice(setup: Message, script: Script) -> Voice:
    """Return a voice whose pitch depends on the name of Gemini's voice."""
    config = setup.get("generationConfig", {}).get("speechConfig", {}).get("voiceConfig", {})
    name = config.get("prebuiltVoiceConfig", {}).get("voiceName", "Puck")
    return Voice(script.language, _LOWEST_VOICE_HERTZ + zlib.crc32(name.encode()) % _VOICES_HERTZ, script.speed)
