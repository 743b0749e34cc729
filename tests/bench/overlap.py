"""How long the network waits for the codecs: from the run's own clock, for any clip and model.

    python tests/bench/overlap.py CLIP [upscale options]

Prints the seconds of the network, of waiting for decoded frames and for the encoder, and their shares.
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]


def main() -> None:
    """Runs `sdatc upscale` on the clip and prints the shares."""
    from sdatc_cli.app import run

    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said):
        out = str(Path(folder) / "out.mp4")
        code = run(["upscale", sys.argv[1], "-o", out, "--json", "--quiet", *sys.argv[2:]])
    if code:
        sys.exit(code)
    result = json.loads(said.getvalue())
    parts = {key: result[f"{key}_seconds"] for key in ("network", "decode_wait", "encode_wait")}
    total = sum(parts.values())
    print(f"{result['frames']} frames, {result['input_size']} -> {result['output_size']}, {result['device']}")
    for key, seconds in parts.items():
        print(f"{key.replace('_', ' '):12} {seconds:9.2f} s  {100 * seconds / total:5.1f} %")


if __name__ == "__main__":
    main()
