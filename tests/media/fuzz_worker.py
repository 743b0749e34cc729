"""Handles the files named on stdin, one a line as [path, apart], as a job would; answers each with a line of JSON.

Run as a program of its own, so that a crash or a hang of a codec is seen from outside and not shared. With `apart` the
decoder runs in another process, as in the command; without, in this one, which is quicker.
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
from sdatc_cli.media import isolated
from sdatc_cli.media.container import open_input
from sdatc_cli.media.evidence import evidence
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_cli.media.write import MediaWriter
from tests.media.clips import FAST, enlarge

MOST_FRAMES = 60
MOST_MEMORY = 3 << 30
isolated.PATIENCE = 30.0


def handle(path: Path, folder: Path, apart: bool) -> dict[str, Any]:
    """Read a file and write what was read. Nothing but a SdatcError is a decent failure."""
    frames = 0
    info = isolated.probe(path) if apart else probe(path)
    (isolated.evidence if apart else evidence)(info)
    out = folder / "out.mkv"
    with (isolated.IsolatedReader if apart else FrameReader)(info) as reader:
        if info.width * info.height > 640 * 480:  # a lying header: reading is enough
            frames = written = sum(1 for _ in islice(reader, MOST_FRAMES))
        else:
            with MediaWriter(out, info, 2 * info.width, 2 * info.height, FAST, True) as writer:
                for frame in islice(reader, MOST_FRAMES):
                    writer.write(enlarge(frame))
                    frames += 1
            with av.open(str(out)) as container:
                written = sum(packet.size > 0 for packet in container.demux(video=0))
    outcome = "reported" if reader.damage else "restored"
    if written != frames or (not reader.damage and frames < min(announced(info), MOST_FRAMES)):
        outcome = "mismatch"
    return {"outcome": outcome, "frames": frames, "damage": reader.damage, "written": written}


def announced(info: MediaInfo) -> int:
    """How many frames the container says it shows; 0 where it does not say. AVI counts repetitions, too."""
    if info.kind != "video" or info.container == "avi":
        return 0
    with open_input(info.path) as container:
        stream = container.streams[info.video_index]
        hidden = sum(packet.is_discard for packet in container.demux(stream)) if stream.frames else 0
        return stream.frames - hidden


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in sys.stdin:
            path, apart = json.loads(line)
            try:
                answer = handle(Path(path), folder, apart)
            except SdatcError as error:
                answer = {"outcome": "refused", "error": str(error), "frames": 0, "damage": []}
            except MemoryError:
                answer = {"outcome": "memory", "error": "MemoryError"}
            except Exception as error:
                answer = {"outcome": "traceback", "error": f"{type(error).__module__}.{type(error).__name__}: {error}"}
            stray = sorted(p.name for p in folder.iterdir() if p.name != "out.mkv")
            print(json.dumps(answer | {"stray": stray}), flush=True)


if __name__ == "__main__":
    main()
