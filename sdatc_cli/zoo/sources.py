"""Where files come from: a repository of the Hugging Face hub (through its own cache, resumed) or a local folder."""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdatc_cli.errors import ModelError, UsageError

from .manifest import Part

_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Folder:
    """A folder with the files under their names in a repository, or all on one level."""

    path: Path

    def __str__(self) -> str:
        return self.path.name

    def get(self, name: str) -> Path | None:
        """The file, or None where it is not here."""
        return next((path for path in (self.path / name, self.path / Path(name).name) if path.is_file()), None)


@dataclass(frozen=True)
class Hub:
    """A repository of the hub at a branch, tag or commit."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    def get(self, name: str) -> Path | None:
        """The file in the hub's cache, downloaded if it must be; None where the repository lacks it.

        ModelError when the hub cannot be reached, or the file did not come through whole.
        """
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(self.repo, name, revision=self.revision))
        except LocalEntryNotFoundError as error:
            if constants.HF_HUB_OFFLINE:
                return None
            raise ModelError(f"{self.repo} cannot be reached") from error
        except EntryNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ModelError(f"{self.repo} cannot be read: {_brief(error)}") from error
        except Exception as error:  # what a network and its libraries can raise has no common class
            raise ModelError(f"{self.repo} cannot be read: {_brief(error)}") from error
        return path


Source = Folder | Hub


@dataclass(frozen=True)
class Fetched:
    """A file that a model is made from, as it was found."""

    part: str
    name: str
    path: Path
    source: str
    sha256: str


def parse(text: str) -> Source:
    """A folder, or REPO, or REPO@REVISION. UsageError for anything else."""
    if Path(text).is_dir():
        return Folder(Path(text))
    if _REPO.fullmatch(text) is None:
        raise UsageError(f"--source {text}: give a folder that exists, or a repository as OWNER/NAME or OWNER/NAME@REV")
    return hub(text)


def hub(text: str) -> Hub:
    """REPO or REPO@REVISION."""
    repo, _, revision = text.partition("@")
    return Hub(repo, revision or "main")


def fetch(part: Part, preferred: Source | None) -> Fetched:
    """The part's file, from `preferred` where it is there, else from its own repositories. ModelError where none is."""
    trouble: list[str] = []
    own = [hub(repo) for repo in part.repos]
    for source in ([preferred] if preferred else []) + own:
        try:
            found = find(part, source)
        except ModelError as error:
            trouble.append(str(error))
            continue
        if found is None:
            trouble.append(f"{source} has none" + _offline(source))
            continue
        if source in own:
            check(found, part.sha256.get(found.name), f"the known one of {found.name}")
        return found
    raise ModelError(
        f"no {part.what} to be had ({'; '.join(trouble)}): check the network and run the same command again, "
        "or give a mirror or a folder with --source"
    )


def find(part: Part, source: Source) -> Fetched | None:
    """The part's file in one source, hashed; None where it has none. ModelError when it cannot be reached."""
    from sdatc_models import weights

    for name in part.names:
        path = source.get(name)
        if path is not None:
            found = Fetched(part.what, name, path, str(source), weights.sha256(path))
            # The hub's cache keeps large files under the SHA-256 that the hub lists for them.
            stored = path.resolve().name
            if isinstance(source, Hub) and _SHA256.fullmatch(stored):
                check(found, stored, "the one the hub lists")
            return found
    return None


def check(found: Fetched, expected: str | None, which: str) -> None:
    """ModelError when a checksum is known and differs."""
    if expected is not None and found.sha256 != expected:
        raise ModelError(
            f"{found.path} has the checksum {found.sha256[:12]}..., not {which} ({expected[:12]}...): delete it and "
            "run the same command again"
        )


def files(entry_parts: Sequence[Part], source: Source) -> list[Path]:
    """The files of those parts that a source has, each once."""
    found = (find(part, source) for part in entry_parts)
    return list(dict.fromkeys(item.path for item in found if item is not None))


def _offline(source: Source) -> str:
    from huggingface_hub import constants

    return (
        " in the hub's cache, and HF_HUB_OFFLINE is set" if isinstance(source, Hub) and constants.HF_HUB_OFFLINE else ""
    )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
