from dataclasses import dataclass
@dataclass(frozen=True)
class DCMConfig:
    dim: int = 60
    blocks: int = 6
    layers: int = 2
    heads: int = 4
    window: int = 8
    mlp_ratio: float = 2.0
    up_dim: int = 16
