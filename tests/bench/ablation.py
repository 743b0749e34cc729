"""The paper's ablations (Tables 2 to 5) for a trained model, by `sdatc bench`.

    python tests/bench/ablation.py MODEL --data DIR [--crf 25] [--frames N] [--every K] [-o REPORT_DIR]

Runs the model as it is and with one part changed at a time: the distortion control module off (bicubic instead), or not
told how coarsely the clip was compressed, the prompt module none / prompt / softmax, spatio-temporal attention off,
fusion of frames off, guidance off, and CFW at 0 / 0.5 / 0.75 / 1. Parts are switched off in a model that was trained
with them, so the table shows how much the trained model leans on each. A kind of prompt that the model has no weights
for is left out with a note.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from sdatc_cli.bench import command, metrics, table
from sdatc_cli.bench.methods import make
from sdatc_cli.errors import ModelError, SdatcError
from sdatc_cli.output import Terminal

VARIANTS = (
    "sdatc",
    "sdatc:dcm=off",
    "sdatc:quantiser=off",
    "sdatc:prompt=none",
    "sdatc:prompt=prompt",
    "sdatc:prompt=softmax",
    "sdatc:stam=off",
    "sdatc:fusion=off",
    "sdatc:guidance=0",
    "sdatc:fidelity=0",
    "sdatc:fidelity=0.5",
    "sdatc:fidelity=0.75",
    "sdatc:fidelity=1",
)
METRICS = "psnr-y,ssim-y,lpips-vgg,dists,niqe,vmaf,ldl,temporal"


def runnable(model: str, device: str, terminal: Terminal) -> list[str]:
    """The variants whose weights the model has; a model that cannot be read at all raises."""
    kept = []
    for text in VARIANTS:
        try:
            make(text, model, device, "auto").load()
        except ModelError as error:
            if text == "sdatc":
                raise
            terminal.notice(f"{text} left out: {error}")
        else:
            kept.append(text)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="lite, or a model folder")
    parser.add_argument("--dataset", default="vid4")
    parser.add_argument("--data", type=Path, help="where the test sets lie")
    parser.add_argument("--crf", type=int, default=25)
    parser.add_argument("--frames", type=int, help="only the first so many frames of each clip")
    parser.add_argument("--every", type=int, default=1, help="score every so many frames")
    parser.add_argument("--metrics", default=METRICS, help=f"among {', '.join(metrics.KNOWN)}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="report folder; an interrupted run in it is continued")
    words = parser.parse_args()
    terminal = Terminal()
    try:
        request = command.Request(
            dataset=words.dataset,
            data=words.data,
            crfs=(words.crf,),
            kernel="bicubic",
            methods=("bicubic", *runnable(words.model, words.device, terminal)),
            candidates=(),
            metrics=words.metrics,
            frames=words.frames,
            every=words.every,
            model=words.model,
            device=words.device,
            dtype="auto",
            out=words.output,
            save_frames=False,
            resume=words.output is not None,
            overwrite=False,
            command=tuple(sys.argv),
        )
        table.show(command.run(request, terminal), Console(width=None if sys.stdout.isatty() else table.WIDE))
    except SdatcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
