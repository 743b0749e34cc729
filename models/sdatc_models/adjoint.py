"""The adjoint of bilinear sampling: brings the gradient of what was sampled back to the image that it was read from."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Adjoint:
    """The transpose of `flow.sampled` at one grid, as a sparse matrix by rows: one row for each pixel of the images.

    It adds up a pixel's readers in one order, always. Autograd's own on a card adds them as they come, so that no two
    runs give the same bits.
    """

    starts: Tensor  # (N H W,) where each row begins among the entries
    readers: Tensor  # (4 N H W,) of each entry, the place of the grid that read the row's pixel
    weights: Tensor  # (4 N H W,) and the pixel's share in what it read

    @classmethod
    def of(cls, grid: Tensor) -> "Adjoint":
        """For a `flow.sampling_grid` (N, H, W, 2)."""
        count, height, width = grid.shape[:3]
        x = ((grid[..., 0] + 1) / 2 * (width - 1)).clamp(0, width - 1)
        y = ((grid[..., 1] + 1) / 2 * (height - 1)).clamp(0, height - 1)
        left, top = x.floor(), y.floor()
        first = torch.arange(count, device=grid.device).view(-1, 1, 1) * (height * width)  # pixel of each image
        pixels, weights = [], []
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            weights.append((1 - (x - column).abs()) * (1 - (y - row).abs()))
            # Past the last row and column the weight is zero.
            pixels.append(first + row.long().clamp(max=height - 1) * width + column.long().clamp(max=width - 1))
        read, order = torch.stack(pixels).flatten().sort(stable=True)
        places = count * height * width
        starts = torch.searchsorted(read, torch.arange(places, device=grid.device))
        return cls(starts, order % places, torch.stack(weights).flatten()[order])

    def __call__(self, values: Tensor) -> Tensor:
        """Values (N, C, H, W) at the places of the grid -> their sums at the pixels of the images, (N, C, H, W)."""
        count, channels, height, width = values.shape
        table = values.permute(0, 2, 3, 1).reshape(-1, channels)
        sums = F.embedding_bag(self.readers, table, self.starts, mode="sum", per_sample_weights=self.weights)
        return sums.view(count, height, width, channels).permute(0, 3, 1, 2)
