"""One stretch of a video output: an encoder of its own, and the file of packets that it fills."""

from pathlib import Path

from sdatc_cli.engine.journal import Segment
from sdatc_cli.engine.packets import Packet, PacketFile, reorder_delay
from sdatc_cli.media.clock import ClockState
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame
from sdatc_cli.media.video_track import PacketEncoder

STRETCH = 48  # frames; a multiple of plan.STRIDE


class StretchWriter:
    """Encodes the frames of stretch `number` into `file`; `close` finishes it, `abort` removes it."""

    def __init__(self, plan: OutputPlan, file: Path, number: int, clock: ClockState) -> None:
        """`clock`: where the output's clock stands before the first frame. UsageError, OutputError or OSError."""
        self.number = number
        self.first = self.stop = self.frames = 0
        self._encoder = PacketEncoder(plan, clock)
        try:
            self._file = PacketFile(file)
        except BaseException:
            self._encoder.close()
            raise

    def write(self, frame: Frame) -> None:
        """Takes the next frame, restored. OSError, OutputError."""
        if not self.frames:
            self.first = frame.index
        self._encode(frame)
        self.frames += 1
        self.stop = frame.index + 1

    def _encode(self, frame: Frame | None) -> None:
        for packet in self._encoder.encode(frame):
            self._file.write(Packet(packet.pts or 0, packet.duration or 0, packet.is_keyframe, bytes(packet)))

    def close(self, tile: int | None) -> Segment:
        """Flushes the encoder and brings the file to the disk; at least one frame was written. OSError, OutputError."""
        self._encode(None)
        self._encoder.close()
        digest = self._file.close()
        path, clock = self._file.path, self._encoder.clock
        assert clock.last is not None
        numbers = (self.first, self.stop, self.frames, self._file.size)
        return Segment(path.name, *numbers, digest, reorder_delay(path), clock.last, clock.repaired, tile)

    def abort(self) -> None:
        """Removes what was written. OSError."""
        self._encoder.close()
        self._file.discard()
