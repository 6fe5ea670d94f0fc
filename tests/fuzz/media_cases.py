"""Pictures and videos: damaged ones, lists that name other files, descriptions that a terminal would obey."""

import os
import shutil
import subprocess
from pathlib import Path

import good_files
import mutations
from bench import Bench
from good_files import CACHE, CENTRED, EVALUATE, PICTURES, PREPARE, TINY, TRAIN, VIDEOS


def videos(bench: Bench) -> list[str]:
    name, other = bench.random.choices(list(VIDEOS), k=2)
    content, how = bench.content(name), bench.random.random()
    if how < 0.6 and name.endswith((".mp4", ".mov")):
        content = mutations.with_other_boxes(content, bench.random)
    elif how < 0.6 and name == "clip.png":
        content = mutations.with_other_chunks(content, bench.random)
    elif how < 0.9:
        content = mutations.damaged(content, bench.random)
    else:
        content = mutations.spliced(content, bench.content(other), bench.random)
    suffix = Path(name).suffix
    bad = bench.random.choice([f"bad{suffix}", f"bad{suffix}", "bad.mp4", "%03d.avi"])
    bench.write(bad, content)
    return _watching(bench, bad)


def pictures(bench: Bench) -> list[str]:
    name, other = bench.random.choices(PICTURES, k=2)
    content, how = bench.content(name), bench.random.random()
    if how < 0.7 and name.endswith(".png"):
        content = mutations.with_other_chunks(content, bench.random)
    elif how < 0.9:
        content = mutations.damaged(content, bench.random)
    else:
        content = mutations.spliced(content, bench.content(other), bench.random)
    bad = bench.random.choice([f"bad{Path(name).suffix}", "bad.png"])
    bench.write(bad, content)
    return _looking(bench, bad)


def lists(bench: Bench) -> list[str]:
    """Text that names a file, or an address."""
    bench.take("clip.mp4")
    names = ["clip.mp4", "../outside/kept.mp4", f"file://{bench.outside}/kept.mp4", f"{bench.address}/a.mp4", "pipe:0"]
    names += ["concat:clip.mp4|clip.mp4", "subfile,,start,0,end,9,,:clip.mp4", "/dev/zero"]
    one = bench.random.choice(names)
    xml = '<?xml version="1.0"?>'
    texts = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{one}\n#EXT-X-ENDLIST\n",
        f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{one}"\n#EXTINF:9,\nclip.mp4\n',
        f"ffconcat version 1.0\nfile '{one}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={one}\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/9\n",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="{one}"/></svg>',
        f'{xml}<!DOCTYPE a [<!ENTITY e SYSTEM "{one}">]><MPD type="static"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="0"><BaseURL>{one}</BaseURL></Representation></AdaptationSet></Period>&e;</MPD>',
        f"[playlist]\nNumberOfEntries=1\nFile1={one}\n",
        f"%!PS\n({bench.outside}/made) (w) file closefile showpage\n",
        f'DirectShowSource("{one}")\n',
        f"push graphic-context\nviewbox 0 0 640 480\nfill 'url({one})'\npop graphic-context\n",
        f";FFMETADATA1\ntitle={one}\n",
    ]
    suffixes = "m3u8 mp4 txt svg sdp mpd ffconcat png jpg avi eps mkv"
    bad = f"bad.{bench.random.choice(suffixes.split())}"
    bench.write(bad, mutations.other_text(bench.random.choice(texts), bench.random))
    return bench.random.choice([_watching, _looking])(bench, bad)


TITLES = [
    "\x1b[31mred\x1b]0;title\x07",
    "  Stream #0:0: Video: h264, yuv420p, 99999x99999, 1e9 fps",
    "a\nb\r\nc",
    "=" * 9000,
]
TITLES += [
    "\u202egpj",
    "Duration: 99:99:99.99, start: 1e30",
    "Input #0, concat, from '/dev/zero':",
    "${HOME} %s $(touch made)",
]
KEYS = ["title", "comment", "language", "encoder", "creation_time", "rotate", "handler_name", "odd\nkey"]
NAMES = [
    "a\x1b[31m.mp4",
    "a\nb.mp4",
    "-i.mp4",
    "%d.mp4",
    "a|b.mp4",
    "a'b\".mp4",
    "é\udce9.mp4",
]  # where names are bytes


def metadata(bench: Bench) -> list[str]:
    """Titles and names that a terminal would obey, or that look like a description of streams."""
    import imageio_ffmpeg

    name = bench.random.choice(["clip.mp4", "clip.mkv", "clip.webm", "clip.avi", "clip.mov"])
    bad = f"bad{Path(name).suffix}"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "quiet",
        "-nostdin",
        "-i",
        good_files.good(bench.good, name),
    ]
    for kind in ("", ":s:v:0", ":s:a:0"):
        command += [f"-metadata{kind}", f"{bench.random.choice(KEYS)}={bench.random.choice(TITLES)}"]
    subprocess.run([*command, "-map", "0", "-c", "copy", bench.work / bad], check=False)
    if not (bench.work / bad).exists():
        bench.take(f"{name} as {bad}")
    odd = bench.random.choice([bad, *NAMES])
    if os.name == "posix":
        (bench.work / bad).rename(bench.work / odd)
        bad = f"./{odd}"
    return _watching(bench, bad)


def _looking(bench: Bench, bad: str) -> list[str]:
    """A command that reads the picture."""
    bench.take("tiny.safetensors", "clip.gif")
    choice = bench.random.randrange(8)
    if choice < 4:
        crop = bench.random.choice(["--crop none", "--crop none", "--crop 1,2,30,30", ""])
        return [*f"animate --driving clip.gif --driving-crop none {crop} {TINY} --out out.mp4 --source".split(), bad]
    if choice == 4:
        return [*f"attention --crop none --layer 1 {TINY} --out out.png --image".split(), bad]
    if choice == 5:
        return [*f"inspect {CENTRED} {TINY} --out out.png --source {bad} --driving".split(), bad]
    bench.take("picture.jpg as clips/a/0.jpg")
    shutil.move(bench.work / bad, bench.work / "clips" / "a")
    return _of_clips(bench)


def _watching(bench: Bench, bad: str) -> list[str]:
    """A command that reads the video."""
    bench.take("tiny.safetensors", "clip.gif", "picture.png")
    choice = bench.random.randrange(16)
    if choice < 8:
        out = bench.random.choice(["out.mp4", "out.mp4", "out.webm", "out.gif", "out/"])
        return [*f"animate --source picture.png {CENTRED} {TINY} --out {out} --driving".split(), bad]
    if choice < 10:
        return [*f"animate --driving clip.gif {CENTRED} {TINY} --out out.mkv --source".split(), bad]
    if choice < 12:
        frame = bench.random.choice(["", "--frame 0", "--frame 5", "--frame 99999999"])
        return [*f"inspect --source picture.png {CENTRED} {TINY} {frame} --out out.png --driving".split(), bad]
    bench.take("clip.mp4 as clips/good.mp4")
    shutil.move(bench.work / bad, bench.work / "clips")
    return _of_clips(bench)


def _of_clips(bench: Bench) -> list[str]:
    check = "data check clips"
    cache, evaluate = f"{CACHE} clips --out out", f"{EVALUATE} --dataset clips"
    return bench.random.choice([check, check, f"{PREPARE} clips", cache, f"{TRAIN} --dataset clips", evaluate]).split()
