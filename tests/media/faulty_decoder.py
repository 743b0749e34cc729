"""The decoder's program with a codec that fails: FAULT is "KIND NUMBER [FILE]".

It strikes at packet NUMBER; at the start for "start"; in reading instead of decoding for "read". With FILE it strikes
only as long as that does not exist, and makes it.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np

from sdatc_cli.media import decoder

KIND, NUMBER, *ONCE = os.environ["FAULT"].split(" ", 2)


def strike() -> None:
    """What a bad codec does."""
    if ONCE:
        if Path(ONCE[0]).exists():
            return
        Path(ONCE[0]).touch()
    if KIND == "hang":
        time.sleep(1000)
    elif KIND == "memory":
        hoard = []
        while True:
            hoard.append(np.empty(1 << 30, np.uint8))
    else:
        number = {"abort": signal.SIGABRT, "killed": signal.SIGKILL}.get(KIND, signal.SIGSEGV)
        os.kill(os.getpid(), number)


real = decoder._Answers.tell


def tell(self: decoder._Answers, step: str, number: int, seconds: float | None) -> None:
    """Says what comes, as ever, and fails at its turn."""
    real(self, step, number, seconds)
    if number == int(NUMBER) and step == ("read" if KIND == "read" else "decode"):
        strike()


if __name__ == "__main__":
    decoder._Answers.tell = tell
    if KIND == "start":
        strike()
    decoder.main()
