"""Tags of videos: how MP4 and MOV shall write them, and which ones a finished file does not have after all.

So the dispositions of streams, by which players choose among them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from av.stream import Disposition

from sdatc_cli.media.container import open_input
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.remux import STALE_TAGS

# What FFmpeg reads from the atoms that all players know; whatever else an MP4 or MOV says stands in QuickTime's free
# keys, or among those that iTunes added.
_ATOMS = {"title", "artist", "album_artist", "author", "composer", "performer", "album", "date", "comment", "genre",
          "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords",
          "season_number", "episode_sort", "track", "disc", "media_type", "hd_video", "gapless_playback", "compilation",
          "podcast", "rating", "category", "account_type", "account_id", "purchase_date", "make", "model", "location",
          "creation_time", "timecode", "tmpo", "publisher", "encoded_by", "director", "producer", "disclaimer",
          "warning", "playback_requirements", "original_format", "original_source", "host_computer"}  # fmt: skip
# Of the format, the library or the stream itself rather than of the work.
_INNER = {"handler_name", "vendor_id", "filename", "mimetype", *STALE_TAGS}
_OTHER_NAMES = {"title": "name", "album": "product", "author": "artist"}  # under which formats give them back


def has_free_keys(info: MediaInfo, tags: Iterable[str]) -> bool:
    """Whether an input has QuickTime's free keys, as telephones write them.

    A file has either those or the usual atoms, which most players know, and beside which alone a cover can stand.
    """
    usual = _ATOMS | _INNER
    free = [key for key in tags if key.split("-")[0] not in usual and not key.startswith(("iTun", "sort_"))]
    return bool(free) and info.container.startswith("mov,mp4") and not any(s.cover for s in info.streams)


def lost_tags(path: Path, whole: Mapping[str, str], streams: Iterable[Mapping[str, str]]) -> list[str]:
    """Which tags are not in a file, of those that the `whole` and its `streams` were given. InputError."""
    with open_input(path) as file:
        transport = file.format.name == "mpegts"
        there = {key.casefold() for key in file.metadata}
        within = {key.casefold() for stream in file.streams for key in stream.metadata}
    if transport:
        there.add("title")  # the name of the service, which PyAV does not show
    lost = [key for key in whole if not _known(key, there)]
    for tags in streams:
        lost += [
            key
            for key, value in tags.items()
            if not _known(key, within) and key != "creation_time" and (key, value) != ("language", "und")
        ]
    return list(dict.fromkeys(lost))


def lost_dispositions(path: Path, wanted: Sequence[int]) -> list[str]:
    """Which dispositions the streams of a file do not have, of those that they were given. InputError.

    `default` is left out: where no stream says so, players take the first.
    """
    with open_input(path) as file:
        there = [stream.disposition for stream in file.streams]  # not always in the order they were added in
    return [
        flag.name
        for flag in Disposition
        if flag.name and flag != Disposition.default and _having(flag, there) < _having(flag, wanted)
    ]


def _having(flag: Disposition, streams: Sequence[int]) -> int:
    return sum(bool(flag & own) for own in streams)


def _known(key: str, there: set[str]) -> bool:
    name = key.casefold()
    return name in there or _OTHER_NAMES.get(name) in there or name.split("-")[0] in _INNER
