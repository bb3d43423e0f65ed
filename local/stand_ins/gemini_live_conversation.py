"""The conversation over one Live connection, after its setup.

A turn of the agent is audio in real time, with transcription fragments ahead of the audio or behind it, and in every
second turn with the last one after turnComplete. The caller's words are transcribed by the utterance, when the answer
has begun. So does Gemini. The caller's voice or text during the agent's turn interrupts it. Speech whose words cannot
be read, as from a microphone, counts as the caller's line of a script (`gemini_live_caller.py`).

    waiting ──the caller's turn──► speaking ──generationComplete, turnComplete──► waiting
                  │                   │ ▲
                  │                   └─┼───the caller's voice or text: interrupted, turnComplete──► waiting
                  └──toolCall──► calling┘ toolResponse

Only functions for which the agent waits hold up its turn; the caller's voice or text then cancels their calls. What
others answer is said after the turn, or interrupts it (INTERRUPT), or not at all (SILENT). Nothing is said while the
caller speaks: it is for the next turn then. With the closing message the agent calls `hang_up`, if it has it.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from local.pacing import Pacer
from local.speech import SAMPLE_BYTES, Speech, SpokenWord, parts_of, pieces, seconds_of
from local.stand_ins.example_scripts import NO_SCRIPT, ExampleScript
from local.stand_ins.gemini_live_access import ABORTED, ENDED, INVALID_ARGUMENT, Hangup, LiveSession
from local.stand_ins.gemini_live_actions import Actions
from local.stand_ins.gemini_live_agent import Interview, Reply
from local.stand_ins.gemini_live_caller import line_of_caller
from local.stand_ins.gemini_live_faults import Faults
from local.stand_ins.gemini_live_setup import instruction_of, silence_seconds_of, voice_of
from local.stand_ins.gemini_live_tools import Tools
from local.stand_ins.gemini_live_usage import Usage
from local.stand_ins.gemini_live_voice_activity import (
    RATE,
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

_LISTENING_SECONDS: Final = 1.0
"""Audio of one message that is processed at a time."""

_LATE_TEXT_SECONDS: Final = 1.0
"""How long after the end of a turn the fault late_text sends its last words, at natural speed."""

_SENTENCES: Final = re.compile(r"(?<=[.!?])\s*(?=\S)")
_SPOILED_TURN: Final = 2

_PROMPT: Final = re.compile(r"The (caller is on the line|connection was interrupted)\b")
"""Texts by which a client makes the agent speak; they are no words of the caller."""

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
        scripts: Mapping[str, ExampleScript],
    ) -> None:
        self._setup = setup
        self._session, interview = state
        self._interview = interview or Interview.of(instruction_of(setup))
        script = self._interview.script
        self._connection = connection
        self._tasks = tasks
        self._faults = faults
        self._detector = VoiceActivityDetector(silence_seconds_of(setup))
        self._speech = Speech(ANSWER_RATE, voice_of(setup, script))
        self._usage = Usage()
        self._example = scripts.get(script.name, NO_SCRIPT)
        tools = Tools.of(setup, self._example.calls, self._interview.done)
        self._actions = Actions(tools, self._session.calls, script, faults, self._usage, connection.send)
        self._heard: list[str] = []
        self._heard_late: list[str] = []
        self._turn: asyncio.Task[None] | None = None
        self._afterward: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._is_held_up = False
        self._news: list[str] = []
        self._telling: list[str] = []
        self._said = self._transcribed = self._late_text = ""

    async def begin(self) -> None:
        """Begin, or go on with a session, whose open function calls end with their connection."""
        await self._actions.cancel_earlier()

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
                await self._take_tool_response(content)

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
            for piece in pieces(pcm, RATE, _LISTENING_SECONDS):
                await self._hear(self._detector.listen(piece))
                if len(piece) < len(pcm):
                    await asyncio.sleep(0)  # let other calls proceed
        if content.get("audioStreamEnd"):
            await self._hear(self._detector.end())
        if "text" in content:
            self._usage.read_letters += len(content["text"])
            self._session.texts += 1
            if self._session.texts > 1 or "silent_greeting" not in self._faults:
                await self._answer(self._callers(content["text"]))

    async def _take_client_content(self, content: Message) -> None:
        parts = [part for turn in content.get("turns", []) for part in turn.get("parts", [])]
        self._usage.read_letters += sum(len(part.get("text", "")) for part in parts)
        is_history = self._setup.get("historyConfig", {}).get("initialHistoryInClientContent", False)
        if content.get("turnComplete") and not is_history:
            await self._answer(self._callers(parts[-1].get("text", "") if parts else ""))

    def _callers(self, text: str) -> str:
        """Return a text of the client if it has words of the caller, and does not only make the agent speak."""
        return text if self._interview.has_greeted and not _PROMPT.match(text) else ""

    async def _take_tool_response(self, content: Message) -> None:
        if fault := tool_response_fault(self._setup, content):
            raise Hangup(INVALID_ARGUMENT, fault)
        answers = [answer for answer in self._actions.take(content) if answer.scheduling != "SILENT"]
        self._news += map(self._actions.news, answers)
        if self._is_held_up:
            if not self._actions.is_waiting:
                self._is_held_up = False
                self._begin_turn(self._interview.reply(self._news))
        elif self._reply and any(answer.scheduling == "INTERRUPT" for answer in answers):
            self._report(is_cut_off=await self._cut_off())
        elif self._turn is None or self._turn.done():
            self._report()

    async def _hear(self, heard: Iterable[Heard]) -> None:
        for what in heard:
            match what:
                case SpeechStarted():
                    await self._interrupt()
                case WordsHeard():
                    self._session.reads_words = True
                case SpeechEnded() as speech:
                    if not speech.text.strip() and not self._session.reads_words:
                        speech = replace(speech, text=line_of_caller(self._interview, self._example.answers))
                    sentences = "sentences" in self._faults
                    said = _SENTENCES.split(speech.utterance) if sentences else [speech.utterance]
                    self._heard += [] if "late_speech" in self._faults else said
                    self._heard_late += said if self._faults & {"late_speech", "doubled_speech"} else []
                    await self._answer(speech.text.strip())

    # ---- The agent's turns ----

    async def _answer(self, words: str) -> None:
        """Answer the caller: call functions for their words, and speak, unless one of them has to answer first."""
        await self._interrupt()
        if words:
            self._interview = self._interview.hear(words)
            await self._act(words)
        if not self._is_held_up:
            self._begin_turn(self._interview.reply(self._news))

    async def _act(self, words: str) -> None:
        """Call the functions that the caller's words ask for."""
        if wanted := self._actions.wanted(words, self._interview.said):
            await self._open_turn()
            await self._send(*self._callers_words())
            self._news += await self._actions.make(wanted)
            self._is_held_up = self._actions.is_waiting

    def _begin_turn(self, reply: Reply) -> None:
        self._reply, self._said, self._transcribed = reply, "", ""
        self._telling, self._news = self._news, []
        self._turn = self._tasks.create_task(self._speak(reply))

    def _report(self, *, is_cut_off: bool = False) -> None:
        """Tell the news, and say again what they have cut off; not while the caller speaks."""
        if self._news and not self._detector.hears_speech:
            self._begin_turn((self._interview.reply if is_cut_off else self._interview.report)(self._news))

    async def _interrupt(self) -> None:
        """Interrupt the agent's turn for the caller, and cancel the calls for which the agent waits."""
        while self._reply is None and self._turn and not self._turn.done():
            await asyncio.wait([self._turn])  # its last messages are on their way
        await self._cut_off()
        await self._actions.cancel_waiting()
        if self._is_held_up:
            self._is_held_up = False
            await self._end_turn(self._interview, {"interrupted": True})

    async def _cut_off(self) -> bool:
        """Interrupt the agent's turn, even in the middle of a word; before its first sound, begin it anew.

        Return whether the turn has to be repeated, because no word of its question was said.
        """
        if (reply := self._reply) is None:
            return False
        await _cancel(self._turn)
        after = reply.cut_after(self._said)
        if self._usage.spoken_seconds:
            self._late_text = self._said[len(self._transcribed) :]
            await self._send(*self._callers_words(is_end=True))
            await self._end_turn(after, {"interrupted": True})
        else:
            self._reply, self._news = None, [*self._telling, *self._news]
        return after is not reply.with_question

    async def _open_turn(self) -> None:
        await self._send_late_text()
        if self._is_resumable:
            await self._connection.send({"sessionResumptionUpdate": {"resumable": False}})

    async def _speak(self, reply: Reply) -> None:
        await self._open_turn()
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
        if reply.closes:
            await self._actions.hang_up(self._interview.said)
        done = {"generationComplete": True}
        await self._end_turn(reply.with_question, *self._callers_words(is_end=True), last, done)
        self._report()

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
        usage = self._usage.end_turn()
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
