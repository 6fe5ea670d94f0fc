"""Settings, tables, what runs left behind, and command lines."""

import json
from random import Random

import mutations
from bench import Bench
from good_files import CACHE, CENTRED, EVALUATE, PREPARE, TINY, TRAIN

SETTINGS = """preset: small
model:
  resolution: 64
  num_keypoints: 4
  estimator:
    {name: motion-transformer, dim: 32, layers: 2, heads: 4,
     backbone: {widths: [], stem_width: 8, layer1_width: 8, layer1_blocks: 1}}
  dense_motion: {block_expansion: 8, max_features: 16, num_blocks: 2}
  generator: {block_expansion: 8, max_features: 16, num_bottleneck_blocks: 1}
data:
  test_share: 0.2
  augmentation: {time_flip: 0.5, horizontal_flip: 0.5, brightness: 0.1}
loss: {perceptual: 0, pixel: 10}
training: {steps: 1, batch_size: 2, learning_rate: 1.0e-3, checkpoint_every: 2}
"""
NAMES = ["training", "", "model.estimator.name", "data.cache", "training.precision", "a.b.c", "training.learning_rate"]
NAMES += ["model.resolution", "model.num_keypoints", "data.augmentation.time_flip", "loss.pixel", "training.steps"]
NAMES += ["data.test_share", "training.batch_size", "training.freeze", "training.seed", "model.generator", "loss"]


def settings(bench: Bench) -> list[str]:
    """YAML for training and importing; --set."""
    choice = bench.random.randrange(10)
    bench.take("clips", "tiny.safetensors")
    if choice < 2:
        which = bench.random.choice(["fomm", "release", "tpsmm"])
        bench.take(which)
        bench.write("bad.yaml", _other_yaml(bench.content(f"{which}/config.yaml").decode(), bench.random))
        return f"checkpoints import {which}/theirs.pth.tar --config bad.yaml".split()
    if choice < 5:
        value = str(bench.random.choice([*mutations.VALUES, *mutations.TEXTS]))
        as_an_argument = value.replace("\0", "").encode("utf-8", "ignore").decode()
        setting = f"{bench.random.choice(NAMES)}={as_an_argument}"
        return [*f"{TRAIN} --dataset clips --set".split(), setting]
    bench.write("bad.yaml", _other_yaml(SETTINGS, bench.random))
    return f"{TRAIN} --dataset bad.yaml --data clips".replace("--init ./tiny.safetensors", "").split()


def _other_yaml(text: str, random: Random) -> bytes:
    import yaml

    if random.random() < 0.6:
        tree = mutations.other_tree(yaml.safe_load(text), random)
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    return mutations.other_text(text, random)


CELLS = [
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "0",
    "x" * 300,
    "\x1b[31m",
    "~nouser/a.mp4",
    "..",
    "/dev/zero",
    "/",
    "webcam:0",
]
CELLS += ["-", "a\nb", "é", "%03d.png", "true", "99999999999", "0-0-0-0", "1-1-999999-999999"]
JOBS = """source,driving,out,motion,crop,strength,start,end,codec,crf,face,smooth,mode
picture.png,clip.gif,one.mp4,,none,0.5,,,h264,20,largest,0,relative
picture.png,clip.gif,two.webm,,none,1,0,0.3,,,largest,0.1,absolute
"""
CLIPS = """video_id,start,end,bbox,fps,width,height,partition
clip,0,6,0-0-64-64,10.00,64,64,train
clip#ann,1,5,8-8-40-40,29.97,128,64,test
"""
PAIRS = "source,driving\na#0,b#0\nb#0,c#0\n"


def jobs(bench: Bench) -> list[str]:
    bench.take("picture.png", "clip.gif", "tiny.safetensors")
    bench.write("jobs.csv", _other_table(JOBS, bench.random))
    return f"animate --jobs jobs.csv --driving-crop none {TINY}".split()


def tables(bench: Bench) -> list[str]:
    """Of clips for `data prepare`, and of pairs for `eval`."""
    if bench.random.random() < 0.6:
        bench.take("clip.mp4 as raw/clip.mp4")
        bench.write("clips.csv", _other_table(CLIPS, bench.random))
        return f"{PREPARE} raw --metadata clips.csv".split()
    bench.take("clips", "tiny.safetensors")
    bench.write("pairs.csv", _other_table(PAIRS, bench.random))
    return f"{EVALUATE} --dataset clips/train --cross pairs.csv".replace("none --metrics l1", "faces").split()


def _other_table(text: str, random: Random) -> bytes:
    """Two of three keep all cells but a few."""
    lines = [line.split(",") for line in text.splitlines()]
    if random.random() < 0.33:
        return mutations.other_text(text, random)
    for _ in range(random.choice([1, 2, 4])):
        row = random.choice(lines[1:] if random.random() < 0.8 else lines)
        row[random.randrange(len(row))] = random.choice(CELLS)
    return ("\n".join(map(random.choice([",", ";", "\t"]).join, lines)) + "\n").encode()


def left_behind(bench: Bench) -> list[str]:
    """What a run, an evaluation, a cache, jobs or a preparation left, which the same command goes on from."""
    bench.take("tiny.safetensors", "clips")
    choice = bench.random.randrange(8)
    if choice == 0:
        bench.take("run as out")
        bench.damage_lines("out/log.jsonl")
        return f"{TRAIN} --dataset clips --set training.steps=2".split()
    if choice < 3:
        bench.take("evaluation as out")
        files = sorted(file.relative_to(bench.work).as_posix() for file in (bench.work / "out").rglob("*.json"))
        bench.damage_json(bench.random.choice(files))
        return f"{EVALUATE} --dataset clips".split()
    if choice == 3:
        bench.take("evaluation as out", "evaluation")
        files = sorted(file.relative_to(bench.work).as_posix() for file in (bench.work / "out").rglob("*.json"))
        bench.damage_json(bench.random.choice(files))
        return ["eval", "--compare", "out", "evaluation"]
    if choice < 6:
        bench.take("cache")
        bench.damage_lines("cache/index.jsonl")
        pack, cache = "data pack clips --cache cache --out out --size 1MiB", f"{CACHE} clips --out cache"
        return bench.random.choice([pack, f"{TRAIN} --dataset clips --set data.cache=cache", cache]).split()
    if choice == 6:
        bench.take("picture.png", "clip.gif")
        bench.write("jobs.csv", b"source,driving,out,crop\npicture.png,clip.gif,one.mp4,none\n")
        line = {"line": 2, "key": "0" * 16, "source": "picture.png", "out": "one.mp4", "status": "done", "new": True}
        bench.write("jobs.csv.report.jsonl", (json.dumps(line) + "\n").encode() * 2)
        bench.damage_lines("jobs.csv.report.jsonl")
        return f"animate --jobs jobs.csv --driving-crop none {TINY}".split()
    cut = ["train/clip__00.mp4", "clip", "train", "clip.mp4", 0, 6, 0, 0, 64, 64, "10", 6]
    bench.write("out/journal.jsonl", (json.dumps(["clip.mp4", 9000, True, [cut], ["why"]]) + "\n").encode() * 2)
    bench.damage_lines("out/journal.jsonl")
    return f"{PREPARE} clips".split()


ODD = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e308",
    "1e-320",
    "9" * 400,
    "\x1b[31m",
    "a\nb",
    "~nouser/a.mp4",
    "meta",
]
ODD += ["x" * 300, "x" * 300 + ".mp4", "/", ".", "..", "folder", "folder/", "/dev/null", "/dev/full/a.mp4", "clip.gif"]
ODD += [
    "picture.png",
    "none/none.mp4",
    "webcam:x",
    "-",
    "--",
    "-1,-1,-1,-1",
    "0,0,0,0",
    "1,1,99999999999,1",
    "[red]",
    "*",
]
ODD += [
    "nan,0,1,1",
    "1/0",
    "0/1",
    "2/1",
    "é\u202e",
    "cuda:99",
    "mps",
    "true",
    "None",
    "all",
    "auto",
    "%03d.png",
    "1,2,3",
    "{}",
]
ODD += ["a" * 100_000, "\udcff"]
_ANIMATE = f"animate --source picture.png --driving clip.gif {TINY}"
LINES = [
    f"{_ANIMATE} --out out.mp4 {CENTRED} --start 0 --end 0.5 --smooth 0.1 --strength 1 --reference-frame 1",
    f"{_ANIMATE} --out out.mp4 {CENTRED} --face largest --crf 20 --codec h264 --batch-size 2 --precision fp32",
    f"{_ANIMATE} --out out.gif --crop 1,1,20,20 --driving-crop none --save-motion m.npz --background lock",
    f"animate --jobs clip.gif --workers 2 {TINY}",
    f"inspect --source picture.png --driving clip.gif --out out.png {TINY} {CENTRED} --frame 1 --face largest",
    f"attention --image picture.png --out out.png {TINY} --crop none --layer 1 --tokens 1,2 --heads mean --raw raw.npz",
    f"{EVALUATE} --dataset folder --every 2 --shard 1/1 --cross 2 --seed 1",
    "eval --compare folder folder",
    f"{TRAIN} --dataset folder --resolution 64 --resume auto --seed 1 --freeze generator --preset small",
    f"{TRAIN} --dataset folder --backbone-weights picture.png --checkpoint-every 1 --epochs 1 --estimator fomm",
    "export --checkpoint ./tiny.safetensors --format torch --out picture.png --precision fp32 --calibrate clip.gif",
    "checkpoints show ./tiny.safetensors",
    "checkpoints verify ./tiny.safetensors picture.png",
    "checkpoints import picture.png --name a --config vox-cpk",
    "checkpoints export ./tiny.safetensors --layout fomm --out out.pth.tar",
    "checkpoints list --json",
    "data check folder --preset small --workers 0",
    f"{PREPARE} folder --metadata picture.png",
    f"{CACHE} folder --out out --stills folder",
    "data pack folder --cache folder --out out --size 1MiB",
    "models --resolution 64 --json",
    "doctor --json",
]


def command_lines(bench: Bench) -> list[str]:
    bench.take("picture.png", "clip.gif", "tiny.safetensors", "clip.gif as folder/a.gif")
    words = bench.random.choice(LINES).split()
    for _ in range(bench.random.choice([1, 1, 1, 2, 3])):
        change, number = bench.random.randrange(12), bench.random.randrange(len(words))
        values = [place for place in range(1, len(words)) if not words[place].startswith("--")]
        if change == 0:
            words.insert(number, bench.random.choice(ODD))
        elif change == 1 and len(words) > 1:
            del words[number]
        elif values:
            words[bench.random.choice(values)] = bench.random.choice(ODD)
    return words
