"""Files of the Hugging Face hub: out of the hub's own cache, else downloaded, and resumed where that stopped.

huggingface_hub throws away what an interrupted process had; files of gigabytes should not start anew, so the unfinished
file is kept here and only the requests are left to it. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and proxies hold.
"""

import errno
import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sdatc_cli.cache import cache_folder
from sdatc_cli.errors import ModelError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """A file, and the SHA-256 that its source states for it, where it states one."""

    path: Path
    stated: str | None = None


def downloads() -> Path:
    """Where downloaded files lie until they have become a model."""
    return cache_folder("downloads")


@dataclass(frozen=True)
class Hub:
    """A repository at a branch, tag or commit."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    def get(self, name: str) -> Found | None:
        """A file; None where the repository (offline: the hub's cache) lacks it. ModelError when it cannot be had."""
        from huggingface_hub import constants, try_to_load_from_cache

        cached = try_to_load_from_cache(self.repo, name, revision=self.revision)
        if isinstance(cached, str):
            stored = Path(cached).resolve().name  # the cache names large files by the checksum that the hub states
            return Found(Path(cached), stored if _SHA256.fullmatch(stored) else None)
        if constants.HF_HUB_OFFLINE:
            return None
        try:
            return self._download(name)
        except Exception as error:  # what a network and its libraries can raise has no common class
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(f"{self.repo} cannot be reached or read: {type(error).__name__} {reason}") from error

    def _download(self, name: str) -> Found | None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.repo, name, revision=self.revision)
        try:
            about = get_hf_file_metadata(url)
        except EntryNotFoundError:
            return None
        stated = about.etag if about.etag and _SHA256.fullmatch(about.etag) else None
        version = hashlib.sha256(f"{self.repo} {name} {about.etag}".encode()).hexdigest()[:16]
        path = downloads() / version / Path(name).name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.partial")
            with partial.open("ab") as file:
                if about.size is not None and file.tell() > about.size:
                    file.truncate(0)
                http_get(
                    url,
                    file,
                    resume_size=partial.stat().st_size,
                    headers=build_hf_headers(),
                    expected_size=about.size,
                    displayed_filename=name,
                )
            partial.rename(path)
        return Found(path, stated)


def forget(paths: list[Path]) -> None:
    """Delete those of the files that were downloaded here."""
    for path in paths:
        if path.parent.parent == downloads():
            shutil.rmtree(path.parent, ignore_errors=True)
