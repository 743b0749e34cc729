"""Sample pictures of a run: a few frames enlarged, as the model restores them now, and as they were."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sdatc_models.restorer import RestoreOptions, Restorer

from .batches import Batch

ROWS = 4
QUICK = RestoreOptions(steps=10)


class SampleSheet:
    """Writes FOLDER/<step>.png now and then, always of the same clips."""

    def __init__(self, folder: Path, stage: str, batch: Batch, minutes: float, notice: Callable[[str], None]):
        """`minutes`: at least this long between two sheets."""
        self.folder, self.stage, self.pause, self.notice = folder, stage, minutes * 60, notice
        self.batch = Batch(batch.hr[:ROWS], batch.lq[:ROWS], batch.quantiser[:ROWS])
        self.drawn = time.monotonic()

    def update(self, restorer: Restorer, step: int, last: bool = False) -> None:
        """Draw a sheet if it is time, or if the run ends. A sheet that cannot be written is only a notice."""
        if not last and time.monotonic() - self.drawn < self.pause:
            return
        picture = (self.draw(restorer) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        try:
            self.folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(self.folder / f"{step:07}.png")
        except OSError as error:
            self.notice(f"no sample picture of step {step}: {error}")
        self.drawn = time.monotonic()

    @torch.no_grad()
    def draw(self, restorer: Restorer) -> Tensor:
        """(3, height, width) in [0, 1]: a row for each clip's middle frame, enlarged | restored | true."""
        restorer.forget()  # the pictures of the last sheet, which other weights made
        rows = []
        for lq, hr, quantiser in zip(self.batch.lq, self.batch.hr, self.batch.quantiser.tolist(), strict=True):
            middle = len(lq) // 2
            enlarged = F.interpolate(lq[middle : middle + 1], scale_factor=4, mode="bicubic")[0]
            if self.stage == "vae":
                true = hr[middle : middle + 1].to(restorer.device)
                restored = restorer.vae.decode(restorer.vae.encode(true), 1)[0].clamp(0, 1)
            else:
                known = None if math.isnan(quantiser) else quantiser
                restored = restorer.restore(lq, range(len(lq)), replace(QUICK, quantiser=known))[middle]
            rows.append(torch.cat([enlarged.clamp(0, 1), restored.cpu(), hr[middle]], -1))
        return torch.cat(rows, -2)
