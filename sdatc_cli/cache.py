"""Where sdatc keeps what it can make or download again."""

import os
from pathlib import Path

import platformdirs


def cache_folder(name: str) -> Path:
    """The folder `name` inside SDATC_CACHE_DIR where that is set, else inside the platform's cache folder."""
    chosen = os.environ.get("SDATC_CACHE_DIR")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("sdatc")) / name
