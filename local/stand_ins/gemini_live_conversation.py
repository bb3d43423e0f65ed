"""The conversation over one Live connection, after its setup.

A turn of the agent is audio in real time, with transcription fragments ahead of the audio or behind it, and in every
second turn with the last one after turnComplete. The caller's words are transcribed by the utterance, when the answer
has begun. So does Gemini. The caller's voice or text during the agent's turn interrupts it.

    waiting ──the caller's turn──► speaking ──generationComplete, turnComplete──► waiting
                                      └─────the caller's voice or text: interrupted, turnComplete──► waiting
"""

import asyncio
import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from local.pacing import Pacer
from local.speech import SAMPLE_BYTES, Speech, SpokenWord, Voice, parts_of, pieces, seconds_of
from local.stand_ins.gemini_live_access import ABORTED, ENDED, INVALID_ARGUMENT, Hangup, LiveSession
from local.stand_ins.gemini_live_agent import Interview, Reply, Script
from local.stand_ins.gemini_live_faults import Faults
from local.stand_ins.gemini_live_voice_activity import (
    RATE,
    SILENCE_SECONDS,
    Heard,
    SpeechEnded,
    SpeechStarted,
    VoiceActivityDetector,
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

_LATE_TEXT_SECONDS: Final = 1.0
"""How long after the end of a turn the fault late_text sends its last words, at natural speed."""

_SENTENCES: Final = re.compile(r"(?<=[.!?])\s*(?=\S)")
_SPOILED_TURN: Final = 2

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

    async def go_away(self, seconds: float) -> None:
        """Announce the end of the connection, in at most this time."""

    def new_handle(self, session: LiveSession, interview: Interview) -> str:
        """Return a resumption handle for the current state of a call."""

    def pacer(self) -> Pacer:
        """Return a pacer for the audio of one turn."""

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of speech, which the pace shortens."""


class Conversation:
    """Talks to a caller as the agent of a setup; sends resumption handles if the setup asks for them."""

    def __init__(
        self,
        setup: Message,
        state: tuple[LiveSession, Interview | None],
        connection: Connection,
        tasks: asyncio.TaskGroup,
        faults: Faults,
    ) -> None:
        self._setup = setup
        self._session, interview = state
        self._interview = interview or Interview.of(_instruction(setup))
        self._connection = connection
        self._tasks = tasks
        self._faults = faults
        self._detector = VoiceActivityDetector(_silence_seconds(setup))
        self._speech = Speech(ANSWER_RATE, _voice(setup, self._interview.script))
        self._usage = _Usage()
        self._heard: list[str] = []
        self._heard_late: list[str] = []
        self._turn: asyncio.Task[None] | None = None
        self._afterward: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._said = self._transcribed = self._late_text = ""

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
        """Stop the agent's turn, and what follows it."""
        await _cancel(self._turn)
        await _cancel(self._afterward)

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
            self._session.texts += 1
            if self._session.texts > 1 or "silent_greeting" not in self._faults:
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
                case SpeechEnded() as speech:
                    sentences = "sentences" in self._faults
                    said = _SENTENCES.split(speech.utterance) if sentences else [speech.utterance]
                    self._heard += [] if "late_speech" in self._faults else said
                    self._heard_late += said if self._faults & {"late_speech", "doubled_speech"} else []
                    await self._answer()

    # ---- The agent's turns ----

    async def _answer(self) -> None:
        await self._interrupt()
        self._reply, self._said, self._transcribed = self._interview.reply(), "", ""
        self._turn = self._tasks.create_task(self._speak(self._reply))

    async def _interrupt(self) -> None:
        """Interrupt the agent's turn, even in the middle of a word; before its first sound, begin it anew."""
        if self._reply is None:
            return
        await _cancel(self._turn)
        if not self._usage.spoken_seconds:
            self._reply = None
            return
        self._late_text = self._said[len(self._transcribed) :]
        await self._send(*self._callers_words(is_end=True))
        await self._end_turn(self._reply.cut_after(self._said), {"interrupted": True})

    async def _speak(self, reply: Reply) -> None:
        await self._send_late_text()
        if self._is_resumable:
            await self._connection.send({"sessionResumptionUpdate": {"resumable": False}})
        pacer, words = self._connection.pacer(), self._speech.say(reply.text)
        parts, spoken = parts_of(reply.text), 0
        while word := await asyncio.to_thread(next, words, None):
            self._session.turns += not spoken
            due = min(spoken + _WORDS_AHEAD[spoken % len(_WORDS_AHEAD)], len(parts) - 1)
            await self._sound(word, pacer, self._agents_words("".join(parts[:due])))
            if self._said.rstrip() == reply.text[: reply.question_at] != reply.text:
                await self._report_more_to_come()
            spoken += 1
            if spoken == len(parts) // 2 and self._session.turns == _SPOILED_TURN:
                await self._spoil()
        last = self._agents_words("".join(parts))
        if last and (self._session.turns % 2 == 0 or "late_text" in self._faults):
            self._late_text, last = last["outputTranscription"]["text"], {}
        done = {"generationComplete": True}
        await self._end_turn(reply.with_question, *self._callers_words(is_end=True), last, done)

    async def _sound(self, word: SpokenWord, pacer: Pacer, transcription: Message) -> None:
        """Send a word's audio, and transcriptions after its first piece."""
        for piece in pieces(word.pcm, ANSWER_RATE, PIECE_SECONDS):
            await pacer.reach(self._usage.spoken_seconds)
            blob = {"mimeType": _AUDIO_OUT, "data": base64.b64encode(piece).decode()}
            turn = {"modelTurn": {"parts": [{"inlineData": blob}]}}
            await self._send(turn, *self._callers_words(), transcription)
            self._usage.spoken_seconds += seconds_of(piece, ANSWER_RATE)
            transcription = {}
        self._said += word.text

    async def _spoil(self) -> None:
        """Apply the faults in the middle of a turn."""
        if "drop" in self._faults:
            raise Hangup(ABORTED, "")
        if "hang_up" in self._faults:
            raise Hangup(ENDED, "The service is currently unavailable.")
        if "go_away" in self._faults:
            await self._connection.go_away(50)
        if "go_away_now" in self._faults:
            await self._connection.go_away(5)

    async def _end_turn(self, interview: Interview, *contents: Message) -> None:
        self._interview, self._reply = interview, None
        usage, self._usage.spoken_seconds = self._usage.message, 0.0
        status = {"interactionStatus": "IDLE"} if ends_turns_when_idle(self._setup) else {}
        await self._send(*contents, {"turnComplete": True, **status}, beside={"usageMetadata": usage})
        if "late_text" in self._faults:
            self._afterward = self._tasks.create_task(self._send_late_text(_LATE_TEXT_SECONDS))
        else:
            await self._send_late_text()
        if self._is_resumable:
            handle = self._connection.new_handle(self._session, interview)
            await self._connection.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

    async def _report_more_to_come(self) -> None:
        """Send the turnComplete that does not end the turn of a model with an interaction status."""
        if ends_turns_when_idle(self._setup):
            await self._send({"turnComplete": True, "interactionStatus": "IN_PROGRESS"})

    # ---- Transcriptions ----

    def _callers_words(self, *, is_end: bool = False) -> list[Message]:
        """Return the transcriptions of the caller that are due, at the end of a turn with the late ones."""
        utterances, self._heard = self._heard, []
        if is_end:
            utterances, self._heard_late = utterances + self._heard_late, []
        return [self._transcription("input", utterance) for utterance in utterances]

    def _agents_words(self, text: str) -> Message:
        """Return the transcription of the agent's turn up to a text."""
        fragment, self._transcribed = text[len(self._transcribed) :], text
        return self._transcription("output", fragment)

    def _transcription(self, what: str, text: str) -> Message:
        return {f"{what}Transcription": {"text": text}} if text and f"{what}AudioTranscription" in self._setup else {}

    async def _send_late_text(self, after_seconds: float = 0.0) -> None:
        """Send the agent's last words after the end of its turn, before the next one at the latest."""
        await self._connection.sleep(after_seconds)
        text, self._late_text = self._late_text, ""
        await self._send(self._transcription("output", text))

    async def _send(self, *contents: Message, beside: Message | None = None) -> None:
        """Send contents in a message each, the last one with what is beside it; with the fault bundled, in one."""
        messages: list[Message] = []
        for content in filter(None, contents):
            if messages and "bundled" in self._faults and not messages[-1].keys() & content.keys():
                messages[-1] = {**messages[-1], **content}
            else:
                messages.append(content)
        for number, content in enumerate(messages, start=1):
            last = beside if beside and number == len(messages) else {}
            await self._connection.send({"serverContent": content, **last})

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


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        await asyncio.wait([task])


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
