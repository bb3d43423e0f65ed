"""Participants of a LiveKit room, with LiveKit's own client: they publish a tone or a picture, and hear others."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import numpy as np
from livekit import rtc

RATE: Final = 48_000
PATIENCE_SECONDS: Final = 300
_FRAME: Final = RATE // 100
_WINDOW: Final = RATE // 5
_LOUDNESS: Final = 8_000
_QUIET: Final = 1_000


async def until(is_so: Callable[[], Awaitable[bool]], patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds, for as long as a slow machine may need."""
    async with asyncio.timeout(patience_seconds):
        while not await is_so():  # noqa: ASYNC110 (it changes in another process)
            await asyncio.sleep(0.1)


class Person:
    """A participant who has joined a room."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self._hung_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._speaking: list[asyncio.Task[None]] = []
        self.room.on("disconnected", self._end)

    def _end(self, reason: int) -> None:
        if not self._hung_up.done():
            self._hung_up.set_result(reason)

    async def hung_up(self) -> str:
        """Wait until the server disconnects the participant, and return the reason."""
        reason = await asyncio.wait_for(asyncio.shield(self._hung_up), PATIENCE_SECONDS)
        return rtc.DisconnectReason.Name(reason)  # type: ignore[arg-type]

    async def reconnect(self) -> None:
        """Drop all connections, and wait until the client has reconnected."""
        is_back = asyncio.Event()
        self.room.once("reconnected", is_back.set)
        await self.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
        await asyncio.wait_for(is_back.wait(), PATIENCE_SECONDS)

    async def speak(self, hertz: int) -> None:
        """Publish a microphone that carries a tone until the end."""
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        await self.room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )
        self._speaking.append(asyncio.create_task(_hum(source, hertz)))

    async def show(self) -> None:
        """Publish a camera; raises PublishTrackError."""
        track = rtc.LocalVideoTrack.create_video_track("camera", rtc.VideoSource(64, 64))
        await self.room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA)
        )

    async def hears(self, identity: str, hertz: int) -> None:
        """Wait until only a tone arrives from another participant."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            stream = rtc.AudioStream(await self._track_of(identity), sample_rate=RATE, num_channels=1)
            try:
                window = np.zeros(0, np.int16)
                async for event in stream:
                    window = np.concatenate([window, np.frombuffer(event.frame.data, np.int16)])[-_WINDOW:]
                    if _is_tone(window, hertz):
                        return
            finally:
                await stream.aclose()

    async def _track_of(self, identity: str) -> rtc.Track:
        """Wait for the first track of another participant."""

        async def has_come() -> bool:
            return any(self._tracks_of(identity))

        await until(has_come)
        return next(self._tracks_of(identity))

    def _tracks_of(self, identity: str) -> Iterator[rtc.Track]:
        if other := self.room.remote_participants.get(identity):
            yield from (publication.track for publication in other.track_publications.values() if publication.track)

    async def leave(self) -> None:
        """Leave the room; may be called twice."""
        for task in self._speaking:
            task.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)
        await self.room.disconnect()


@asynccontextmanager
async def joined(connection: Mapping[str, str]) -> AsyncIterator[Person]:
    """Join with the LiveKit connection of a session; raises ConnectError."""
    person = Person()
    patient = rtc.RoomOptions(connect_timeout=PATIENCE_SECONDS)
    await person.room.connect(connection["url"], connection["token"], patient)
    try:
        yield person
    finally:
        await person.leave()


async def _hum(source: rtc.AudioSource, hertz: int) -> None:
    """Send a tone as fast as the source accepts it, which is real time."""
    at = 0
    while True:
        wave = np.sin((np.arange(_FRAME) + at) * (2 * math.pi * hertz / RATE)) * _LOUDNESS
        await source.capture_frame(rtc.AudioFrame(wave.astype(np.int16).tobytes(), RATE, 1, _FRAME))
        at += _FRAME


def _is_tone(window: "np.typing.NDArray[np.int16]", hertz: int) -> bool:
    """Return whether a tone is the loudest part of a sound, and most of it."""
    if len(window) < _WINDOW or np.abs(window).max() < _QUIET:
        return False
    energies = np.abs(np.fft.rfft(window * np.hanning(_WINDOW))) ** 2
    at = round(hertz * _WINDOW / RATE)
    return bool(energies[at - 3 : at + 4].sum() > energies.sum() / 2)
