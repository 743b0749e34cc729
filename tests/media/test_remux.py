"""What surrounds the video survives: the outputs are opened again and compared stream by stream."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sdatc_cli.media.probe import probe
from sdatc_cli.media.write import EncodeOptions
from tests.media.clips import FAST, VFR, convert, take_apart, times, waves


def test_matroska_keeps_every_stream_bit_for_bit(rich_mkv, tmp_path):
    out = tmp_path / "out.mkv"
    damage, notices = convert(rich_mkv, out)
    assert (damage, notices) == ([], [])
    before, after = take_apart(rich_mkv), take_apart(out)
    assert [p.kind for p in before] == ["video", "audio", "audio", "subtitle", "subtitle", "attachment", "video"]
    assert len(before) == len(after)
    for old, new in zip(before[1:], after[1:], strict=True):
        assert (new.kind, new.codec, new.language, new.title) == (old.kind, old.codec, old.language, old.title)
        assert new.disposition == old.disposition
        assert new.packets == old.packets, f"{old.kind} {old.codec}"
        assert new.payload == old.payload
    assert len(before[1].packets) > 50 and len(before[3].packets) == 2 and len(before[5].payload) == 10240
    assert after[0].title == "Picture"


def test_variable_frame_rate_is_kept(rich_mkv, tmp_path):
    convert(rich_mkv, tmp_path / "out.mkv")
    assert times(tmp_path / "out.mkv") == [Fraction(t, 1000) for t in VFR]


def test_chapters_and_metadata_are_kept(rich_mkv, tmp_path):
    convert(rich_mkv, tmp_path / "out.mkv")
    with av.open(str(rich_mkv)) as old, av.open(str(tmp_path / "out.mkv")) as new:
        assert [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in new.chapters()] == [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in old.chapters()
        ]
        assert len(new.chapters()) == 2
        tags = {k.lower(): v for k, v in new.metadata.items()}
        assert (tags["title"], tags["comment"]) == ("A test film", '50% "quoted"; odd')


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_two_equal_runs_give_equal_files(ending, rich_mkv, tmp_path):
    """No dates of now, no random identifiers."""
    for name in ("one", "other"):
        convert(rich_mkv, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()


def test_mp4_keeps_what_it_can_and_names_the_rest(rich_mkv, tmp_path):
    out = tmp_path / "out.mp4"
    _, notices = convert(rich_mkv, out)
    after = take_apart(out)
    assert [p.codec for p in after if p.kind == "audio"] == ["aac", "flac"]
    for kind in ("aac", "flac"):
        old = next(p for p in take_apart(rich_mkv) if p.codec == kind)
        new = next(p for p in after if p.codec == kind)
        assert [d for _, d in new.packets] == [d for _, d in old.packets]
        assert new.language == old.language
        assert all(abs(a - b) < 0.002 for (a, _), (b, _) in zip(old.packets, new.packets, strict=True))
    assert [(p.codec, p.language) for p in after if p.kind == "subtitle"] == [("mov_text", "fra"), ("mov_text", "und")]
    lines = [d for p in after if p.language == "fra" for _, d in p.packets if len(d) > 2]
    assert lines[0][2:] == b"First line" and "Second — naïve".encode() in lines[1]
    assert [p.kind for p in after].count("video") == 2 and after[-1].packets[0][1] == take_apart(rich_mkv)[6].packets[
        0
    ][1]
    assert len([n for n in notices if "converted to mov_text" in n]) == 2
    assert len([n for n in notices if "attachment" in n and "left out" in n]) == 1
    with av.open(str(out)) as container:
        assert len(container.chapters()) == 2
    assert times(out) == [Fraction(t, 1000) for t in VFR]


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_sound_of_an_mp4_keeps_its_bits_and_its_sync(sound_mp4, tmp_path, ending):
    out = tmp_path / f"out{ending}"
    convert(sound_mp4, out)
    before, after = take_apart(sound_mp4), take_apart(out)
    old, new = (next(p for p in parts if p.kind == "audio") for parts in (before, after))
    assert [d for _, d in old.packets] == [d for _, d in new.packets]
    assert new.language == "jpn"
    video_old, video_new = times(sound_mp4), times(out)
    if ending == ".mkv":
        words = next(p for p in after if p.kind == "subtitle")
        assert (words.codec, words.packets[0][1]) == ("srt", b"First line")
    assert len(video_old) == len(video_new) == 30
    offset_old = old.packets[1][0] - video_old[0]
    offset_new = new.packets[1][0] - video_new[0]
    assert abs(offset_old - offset_new) < Fraction(1, 500)


def test_transport_stream_starts_anywhere_and_stays_in_sync(sound_mp4, tmp_path, ffmpeg):
    stream = tmp_path / "late.ts"
    ffmpeg("-i", sound_mp4, "-map", "0:v", "-map", "0:a", "-c", "copy", "-output_ts_offset", "5000", stream)
    assert probe(stream).start_time > 4999
    convert(stream, tmp_path / "out.mp4")
    before, after = take_apart(stream), take_apart(tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4")[0] < 1
    old, new = before[1].packets[5][0] - times(stream)[0], after[1].packets[5][0] - times(tmp_path / "out.mp4")[0]
    assert abs(old - new) < Fraction(1, 500)
    assert len(before[1].packets) == len(after[1].packets)


def test_a_part_is_cut_from_every_stream(rich_mkv, tmp_path):
    out = tmp_path / "out.mkv"
    convert(rich_mkv, out, start=0.5, duration=0.6)
    inside = [t for t in VFR if 500 <= t < 1100]
    assert times(out) == [Fraction(t - 500, 1000) for t in inside]
    before, after = take_apart(rich_mkv), take_apart(out)
    for index in (1, 2):
        payloads = [d for t, d in before[index].packets if Fraction(9, 20) < t < Fraction(11, 10)]
        assert [d for _, d in after[index].packets if d in payloads] == [d for _, d in after[index].packets]
        assert len(payloads) - 3 <= len(after[index].packets) <= len(payloads)
        first = next(t for t, d in before[index].packets if d == after[index].packets[0][1])
        assert after[index].packets[0][0] == first - Fraction(1, 2) < Fraction(1, 10)
    lines = [(t, d) for t, d in after[3].packets]
    assert lines[0][0] == 0 and b"First" in lines[0][1]  # it stands since before the start
    assert lines[1][0] == Fraction(1, 5)
    assert after[5].payload == before[5].payload
    with av.open(str(out)) as container:
        spans = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
    assert spans == [(0, Fraction(1, 10)), (Fraction(1, 10), Fraction(3, 5))]


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_chapters_behind_the_end_are_left_out(ending, rich_mkv, tmp_path):
    out = tmp_path / f"out.{ending}"
    convert(rich_mkv, out, duration=0.3)
    assert len(times(out)) == len([t for t in VFR if t < 300])
    with av.open(str(out)) as container:
        spans = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
    assert spans == [(0, Fraction(3, 10))]


def test_several_video_streams_one_restored_the_others_copied(rich_mkv, tmp_path, ffmpeg):
    two = tmp_path / "two.mkv"
    ffmpeg("-i", rich_mkv, "-map", "0:v:0", "-map", "0:v:0", "-c", "copy", "-disposition:v:0", "0",
           "-disposition:v:1", "default", two)  # fmt: skip
    info = probe(two)
    assert info.video_index == 1 and any("stream 1 is restored" in n for n in info.notices)
    convert(two, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [s.codec_context.width for s in container.streams.video] == [96, 192]
    assert take_apart(tmp_path / "out.mkv")[0].packets == take_apart(two)[0].packets


def test_the_old_files_statistics_do_not_describe_the_new_one(rich_mkv, tmp_path):
    convert(rich_mkv, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as new:
        tags = {k.upper() for k in new.streams.video[0].metadata}
    assert not tags & {"BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES"}


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_what_made_the_old_file_is_not_said_to_have_made_the_new_one(ending, rich_mkv, tmp_path, ffmpeg):
    """Matroska writes such tags in capitals. WebM's sound is another as well, Matroska's is the same."""
    old, new = tmp_path / "old.mkv", tmp_path / f"new.{ending}"
    ffmpeg("-i", rich_mkv, "-map", "0:v:0", "-map", "0:a:1", "-c:v", "ffv1", "-c:a", "flac",
           "-metadata", "major_brand=isom", "-metadata", "compatible_brands=isommp41", old)  # fmt: skip
    convert(old, new, EncodeOptions("libvpx-vp9") if ending == "webm" else FAST)
    with av.open(str(old)) as before, av.open(str(new)) as after:
        assert {"MAJOR_BRAND", "COMPATIBLE_BRANDS"} <= set(before.metadata)
        assert not {"MAJOR_BRAND", "COMPATIBLE_BRANDS"} & set(after.metadata)
        assert after.metadata["title"] == "A test film"
        video, sound = (after.streams[i].metadata.get("ENCODER", "") for i in (0, 1))
        assert "ffv1" in before.streams[0].metadata["ENCODER"] and "ffv1" not in video
        assert ("flac" in sound) == (ending == "mkv")


FREE = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "mood": "calm"}
USUAL = {"title": "A film", "artist": "Somebody", "comment": "none", "date": "2020"}


def tagged(source: Path, out: Path, ffmpeg, tags: dict[str, str], *words: str) -> Path:
    ffmpeg("-i", source, "-c", "copy", *words, *(w for t in tags.items() for w in ("-metadata", "=".join(t))), out)
    return out


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_the_free_keys_of_telephones_stay(ending, sound_mp4, tmp_path, ffmpeg):
    source = tagged(sound_mp4, tmp_path / "in.mov", ffmpeg, USUAL | FREE, "-movflags", "use_metadata_tags")
    _, notices = convert(source, tmp_path / f"out.{ending}")
    with av.open(str(tmp_path / f"out.{ending}")) as container:
        assert container.metadata.items() >= (USUAL | FREE).items()
    assert not any("tags" in n for n in notices)


def test_tags_stay_where_all_players_look_for_them(sound_mp4, tmp_path, ffmpeg):
    """The atoms of iTunes, which give way when free keys are written."""
    source = tagged(sound_mp4, tmp_path / "in.mp4", ffmpeg, USUAL)
    _, notices = convert(source, tmp_path / "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert b"mdirappl" in content and b"\xa9nam" in content and b"A film" in content
    assert not any("tags" in n for n in notices)


@pytest.mark.parametrize(("ending", "kept"), [("mkv", 5), ("nut", 5), ("mp4", 2), ("ts", 0), ("avi", 2)])
def test_tags_that_a_container_cannot_hold_are_named(ending, kept, sound_mp4, tmp_path, ffmpeg):
    tags = {"IMDB": "tt1", "DIRECTOR": "Her", "comment": "none", "date": "2020"}
    source = tagged(sound_mp4, tmp_path / "in.mkv", ffmpeg, tags, "-map", "0:v", "-metadata:s:v", "FOO=bar")
    out = tmp_path / f"out.{ending}"
    _, notices = convert(source, out)
    with av.open(str(out)) as container:
        there = {k.casefold() for part in (container, *container.streams) for k in part.metadata}
    lost = {name for name in (*tags, "FOO") if name.casefold() not in there}
    assert len(lost) == 5 - kept
    told = [n for n in notices if "tags" in n]
    assert len(told) == bool(lost)
    if told:
        named = told[0].partition(" hold ")[2].partition(";")[0]
        assert {name.casefold() for name in named.split(", ")} == {name.casefold() for name in lost}


def test_names_with_odd_characters(rich_mkv, tmp_path):
    for name in [
        "-dash.mkv",
        "per%03dcent.mkv",
        "quo\"te's.mkv",
        "new\nline.mkv",
        "concat:a|b.mkv",
        "ünïcode 日本.mkv",
    ]:
        source = tmp_path / "in" / name
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(Path(rich_mkv).read_bytes())
        convert(source, tmp_path / name)
        assert len(times(tmp_path / name)) == len(VFR)


@pytest.mark.parametrize(("ending", "left_out"), [("webm", 2), ("mov", 2), ("ts", 4), ("avi", 4), ("nut", 3)])
def test_other_containers_name_what_they_leave_out(ending, left_out, rich_mkv, tmp_path):
    options = EncodeOptions("libvpx-vp9") if ending == "webm" else FAST
    _, notices = convert(rich_mkv, tmp_path / f"out.{ending}", options)
    assert len([n for n in notices if "stream" in n and "left out" in n]) == left_out, notices
    kept = [p for p in take_apart(tmp_path / f"out.{ending}") if p.kind not in ("data",)]
    assert len(kept) == 7 - left_out
    for new in kept:
        old = [p for p in take_apart(rich_mkv) if p.codec == new.codec and p.kind == "audio"]
        assert not old or [d for _, d in new.packets][-1] == [d for _, d in old[0].packets][-1] or ending == "ts"


@pytest.mark.parametrize(("ending", "codec"), [("webm", "opus"), ("mov", "alac"), ("ts", "aac"), ("mkv", "flac")])
def test_sound_that_does_not_fit_is_converted_and_told(ending, codec, rich_mkv, tmp_path, ffmpeg):
    source = rich_mkv
    if ending == "mkv":
        source = tmp_path / "old.wmv"
        ffmpeg("-i", rich_mkv, "-map", "0:v:0", "-map", "0:a:1", "-c:v", "wmv2", "-c:a", "wmav2", source)
    options = EncodeOptions("libvpx-vp9") if ending == "webm" else FAST
    _, notices = convert(source, tmp_path / f"out.{ending}", options)
    assert any(f"converted to {'lib' if codec == 'opus' else ''}{codec}" in n for n in notices), notices
    with av.open(str(source)) as old, av.open(str(tmp_path / f"out.{ending}")) as new:
        assert new.streams.audio[-1].codec_context.name in (codec, f"lib{codec}")
        language = old.streams.audio[-1].language
        assert new.streams.audio[-1].language == ("ger" if ending == "mov" else language)  # QuickTime's own code
        before, after = waves(old), waves(new)
    assert abs(len(before) - len(after)) < 4500
    if ending in ("mkv", "mov"):  # without loss
        assert len(before) == len(after)
        assert np.abs(before - after).max() < 1e-3
    spectrum = np.abs(np.fft.rfft(after[4000:48100]))
    assert abs(spectrum.argmax() * 44100 / 44100 - 880) < 5


@pytest.mark.parametrize(
    ("source", "codec", "ending"),
    [("a.mkv", "flac", "webm"), ("a.mkv", "pcm_alaw", "mkv"), ("a.avi", "adpcm_ms", "mkv"), ("a.mkv", "wavpack", "mov"),
     ("a.mkv", "libvorbis", "ts")],
)  # fmt: skip
def test_converted_sound_keeps_its_times(source, codec, ending, rich_mkv, tmp_path, ffmpeg):
    """The decoder delivers what the encoder takes: nothing in between puts the clock of the file right. Half a second
    of silence that is not in the file stays a hole."""
    old, new = tmp_path / source, tmp_path / f"out.{ending}"
    hole = [] if source.endswith("avi") else ["-af", "aselect='not(between(t,0.5,1))'"]
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", "sine=440:r=48000:d=1.44", "-map", "0:v:0", "-map", "1", *hole,
           "-c:v", "mpeg4", "-c:a", codec, "-ac", "2", old)  # fmt: skip
    convert(old, new, EncodeOptions("libvpx-vp9") if ending == "webm" else FAST)
    stretches = heard(new)
    assert len(stretches) == (2 if hole else 1)
    for before, after in zip(heard(old), stretches, strict=True):
        assert np.allclose(before, after, atol=0.1)  # within a packet of ALAC


def heard(path: Path) -> list[tuple[float, float]]:
    """Begin and end of each stretch of the first sound track without a hole, in seconds."""
    stretches: list[tuple[float, float]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            begin, end = frame.time, frame.time + frame.samples / frame.sample_rate
            if stretches and begin - stretches[-1][1] < 0.1:
                stretches[-1] = stretches[-1][0], end
            else:
                stretches.append((begin, end))
    return stretches


@pytest.mark.parametrize(("channels", "layout"), [(2, "stereo"), (6, "5.1"), (9, None)])
@pytest.mark.parametrize("ending", ["avi", "mkv"])
def test_pcm_without_a_channel_layout_fits_into_an_mp4(ending, channels, layout, rich_mkv, tmp_path, ffmpeg):
    """Nine channels have no usual layout: that is found before the work, not in the trailer."""
    old, new = tmp_path / f"a.{ending}", tmp_path / "out.mp4"
    waves = "|".join(["sin(t)"] * channels)
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", f"aevalsrc={waves}:d=1.44:s=8000", "-map", "0:v:0", "-map", "1",
           "-c:v", "mpeg4", "-c:a", "pcm_s16le", old)  # fmt: skip
    _, notices = convert(old, new)
    if layout is None:
        assert any("left out: mp4 cannot hold it" in n for n in notices), notices
        assert "audio" not in [p.kind for p in take_apart(new)]
        return
    assert b"".join(d for _, d in take_apart(new)[1].packets) == b"".join(d for _, d in take_apart(old)[1].packets)
    with av.open(str(new)) as container:
        assert container.streams.audio[0].codec_context.layout.name == layout


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_sound_whose_packets_are_shorter_than_a_tick_keeps_its_speed(ending, rich_mkv, tmp_path, ffmpeg):
    """TrueHD's last 0.83 ms, Matroska counts in whole ones: some begin at the same time."""
    old, new = tmp_path / "a.mkv", tmp_path / f"out.{ending}"
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", "sine=440:r=48000:d=1.44", "-map", "0:v:0", "-map", "1",
           "-c:v", "copy", "-c:a", "truehd", "-strict", "-2", "-ac", "2", old)  # fmt: skip
    convert(old, new)
    before, after = (take_apart(path)[1].packets for path in (old, new))
    assert len({t for t, _ in before}) < len(before)
    assert [d for _, d in after] == [d for _, d in before]
    assert max(abs(a - b) for (a, _), (b, _) in zip(after, before, strict=True)) < Fraction(1, 1000)


@pytest.mark.parametrize(
    ("source", "codec", "channels", "out", "layout"),
    [("a.avi", "pcm_u8", "stereo", "out.mp4", "stereo"), ("a.avi", "adpcm_ms", "stereo", "out.ts", "stereo"),
     ("a.wmv", "wmav2", "stereo", "out.mov", "stereo"), ("a.mkv", "ac3", "5.1(side)", "out.webm", "5.1")],
)  # fmt: skip
def test_channels_without_a_name_the_encoder_knows_are_converted(
    source, codec, channels, out, layout, rich_mkv, tmp_path, ffmpeg
):
    """AVI and WMV say only how many there are; Opus has no speakers beside the listener."""
    tones = [300, 500, 700, 60, 900, 1100][: 2 if channels == "stereo" else 6]  # the fourth is for the subwoofer
    waves = "|".join(f"0.5*sin(2*PI*{tone}*t)" for tone in tones)
    old, new = tmp_path / source, tmp_path / out
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", f"aevalsrc={waves}:c={channels}:d=1.44:s=48000", "-map", "0:v:0",
           "-map", "1", "-c:v", "wmv2" if source.endswith("wmv") else "mpeg4", "-c:a", codec, old)  # fmt: skip
    _, notices = convert(old, new, EncodeOptions("libvpx-vp9") if out.endswith("webm") else FAST)
    assert any("converted to" in n for n in notices), notices
    with av.open(str(new)) as container:
        assert container.streams.audio[0].codec_context.layout.name == layout
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    heard_tones = np.abs(np.fft.rfft(sound[:, 9600:57600])).argmax(axis=1)  # of one second
    assert np.abs(heard_tones - tones).max() <= 5


@pytest.mark.parametrize("codec", ["ac3", "aac", "libmp3lame", "mp2", "eac3", "flac", "libvorbis", "dca"])
def test_sound_in_an_avi_lasts_as_long_as_it_did(codec, rich_mkv, tmp_path, ffmpeg):
    """From Matroska, then from AVI to AVI: what the file says of blocks decides how its packets are counted. FFmpeg
    itself counts the last four wrongly, so that they are converted."""
    old = tmp_path / "a.mkv"
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", "sine=440:r=48000:d=1.44", "-map", "0:v:0", "-map", "1", "-ac", "2",
           "-c:v", "mpeg4", "-c:a", codec, "-strict", "-2", old)  # fmt: skip
    copied = codec in ("ac3", "aac", "libmp3lame", "mp2")
    for name in ("one.avi", "other.avi"):
        new = tmp_path / name
        convert(old, new)
        before, after = take_apart(old)[1], take_apart(new)[1]
        assert after.codec == (before.codec if copied else "pcm_s16le")
        if copied:
            assert [d for _, d in after.packets] == [d for _, d in before.packets]
        assert abs(after.packets[-1][0] - before.packets[-1][0]) < Fraction(1, 20)
        old = new


@pytest.mark.parametrize(("codec", "late"), [("pcm_u8", 0.5), ("libmp3lame", 0.5), ("ac3", 12)])
def test_sound_that_begins_late_does_so_in_an_avi(codec, late, rich_mkv, tmp_path, ffmpeg):
    """AVI has no times: it gets silence ahead, and in holes. Twelve seconds are more than FFmpeg looks ahead."""
    old, new = tmp_path / "a.mkv", tmp_path / "out.avi"
    ffmpeg("-i", rich_mkv, "-f", "lavfi", "-i", "sine=440:r=48000:d=3", "-map", "0:v:0", "-map", "1", "-c:v", "copy",
           "-c:a", codec, "-af", f"aselect='not(between(t,1,2))',asetpts=PTS+{late}/TB", old)  # fmt: skip
    _, notices = convert(old, new)
    assert any("converted to pcm_s16le: avi would begin it" in n for n in notices), notices
    with av.open(str(new)) as container:
        sound = waves(container)
    loud = np.abs(sound[: len(sound) // 4410 * 4410]).reshape(-1, 4410).max(axis=1) > 0.05  # tenths of a second
    begin = round(10 * late)
    assert not loud[: begin - 1].any() and loud[begin + 1 : begin + 9].all()
    assert not loud[begin + 12 : begin + 18].any() and loud[begin + 22 : begin + 28].all()
