"""Interlaced frames to progressive ones, one for every two fields, with FFmpeg's bwdif."""

from collections.abc import Iterator

import av.error
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


class Deinterlacer:
    """Frames in, as many frames out, one frame late; those not flagged interlaced pass unchanged."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def push(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """Give one frame (None to flush) and take those that are ready."""
        if frame is None:
            yield from self._drain()
            return
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self._drain()
            self._graph = self._build(frame)
            self._shape = shape
        assert self._graph is not None
        self._graph.vpush(frame)
        yield from self._ready()

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
        )
        graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
        graph.configure()
        return graph

    def _drain(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if frame.pts is not None and frame.time_base and self._stream.time_base:  # bwdif counts in half ticks
                frame.pts = round(frame.pts * frame.time_base / self._stream.time_base)
                frame.duration = round(frame.duration * frame.time_base / self._stream.time_base)
                frame.time_base = self._stream.time_base
            yield frame
