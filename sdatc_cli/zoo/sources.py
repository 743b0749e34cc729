"""Where a model's parts come from: a local folder or repositories of the hub, asked in order, every file hashed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdatc_cli.errors import ModelError, UsageError

from .hub import Found, Hub, forget
from .manifest import Part

_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Folder:
    """A folder with the files under their names in a repository, or all on one level."""

    path: Path

    def __str__(self) -> str:
        return self.path.resolve().name

    def get(self, name: str) -> Found | None:
        """A file, or None where it is not here."""
        places = (self.path / name, self.path / Path(name).name)
        return next((Found(path) for path in places if path.is_file()), None)


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
    from huggingface_hub import constants

    trouble: list[str] = []
    own = [hub(repo) for repo in part.repos]
    for source in ([preferred] if preferred else []) + own:
        try:
            found = find(part, source)
            if found is not None and source in own:
                check(found, part.sha256.get(found.name), "known")
        except ModelError as error:
            trouble.append(str(error))
            continue
        if found is None:
            offline = isinstance(source, Hub) and constants.HF_HUB_OFFLINE
            trouble.append(f"{source} is not in the hub's cache" if offline else f"{source} has none")
            continue
        return found
    hint = "unset HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "check the network and run the same command again"
    raise ModelError(
        f"no {part.what} to be had: {hint}, or give a mirror or a folder with --source ({'; '.join(trouble)})"
    )


def find(part: Part, source: Source) -> Fetched | None:
    """The part's file in one source, hashed; None where it has none. ModelError when it cannot be had whole."""
    from sdatc_models import weights

    for name in part.names:
        found = source.get(name)
        if found is not None:
            fetched = Fetched(part.what, name, found.path, str(source), weights.sha256(found.path))
            check(fetched, found.stated, "stated")
            return fetched
    return None


def check(fetched: Fetched, expected: str | None, which: str) -> None:
    """ModelError when the checksum is known and another; what was downloaded here is then deleted."""
    if expected is None or fetched.sha256 == expected:
        return
    forget([fetched.path])
    left = f"; delete {fetched.path}" if fetched.path.exists() else ""
    raise ModelError(
        f"{fetched.name} of {fetched.source} is damaged or was changed: its SHA-256 is {fetched.sha256[:12]}..., "
        f"the {which} one {expected[:12]}...{left}"
    )


def files(parts: Sequence[Part], source: Source) -> list[Path]:
    """The files of those parts that a source has, each once."""
    found = (find(part, source) for part in parts)
    return list(dict.fromkeys(item.path for item in found if item is not None))
