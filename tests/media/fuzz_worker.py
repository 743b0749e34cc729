"""Handles the files named on stdin, one a line, as a job would; answers each with one line of JSON.

Run as a program of its own, so that a crash or a hang of a codec is seen from outside and not shared.
"""

import json
import resource
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import av

from sdatc_cli.errors import SdatcError
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_cli.media.write import MediaWriter
from tests.media.clips import FAST, enlarge

MOST_FRAMES = 60
MOST_MEMORY = 3 << 30


def handle(path: Path, folder: Path) -> dict[str, Any]:
    """Read a file and write what was read. Nothing but a SdatcError is a decent failure."""
    frames = 0
    info = probe(path)
    out = folder / "out.mkv"
    with FrameReader(info) as reader:
        if info.width * info.height > 640 * 480:  # a lying header: reading is enough
            frames = sum(1 for _ in islice(reader, MOST_FRAMES))
            return {"outcome": "read", "frames": frames, "damage": reader.damage}
        with MediaWriter(out, info, 2 * info.width, 2 * info.height, FAST, True) as writer:
            for frame in islice(reader, MOST_FRAMES):
                writer.write(enlarge(frame))
                frames += 1
    with av.open(str(out)) as container:
        written = sum(packet.size > 0 for packet in container.demux(video=0))
    return {"outcome": "written", "frames": frames, "damage": reader.damage, "written": written}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in sys.stdin:
            path = Path(json.loads(line))
            try:
                answer = handle(path, folder)
            except SdatcError as error:
                answer = {"outcome": "refused", "error": str(error), "frames": 0, "damage": []}
            except Exception as error:
                answer = {"outcome": "traceback", "error": f"{type(error).__module__}.{type(error).__name__}: {error}"}
            stray = sorted(p.name for p in folder.iterdir() if p.name != "out.mkv")
            print(json.dumps(answer | {"stray": stray}), flush=True)


if __name__ == "__main__":
    main()
