"""The engine against the field's way, the network alone: frames a second, and how far the pictures are apart.

    python benchmarks/engine.py [--checkpoint default] [--pairs 5] [--clips FOLDER] [--exported FOLDER ...] [--sweep]
        [--processor-time]
    python benchmarks/engine.py --preset vox --device cuda --batch 16 --frames 64
    python benchmarks/engine.py --preset vox --save vox.safetensors

The field's way is the yardstick: the same network, eager, one frame at a time, in float32, the source encoded anew for
each frame, all frames in memory. The two take turns, so that what else the machine does hits both; medians of `--pairs`
turns after one to warm up.

--preset: a network of that size with random weights, which --save keeps as a checkpoint. --clips: real videos, on the
first of which results are compared (else synthetic pictures). --exported: what `mtanimate export` wrote of the same
checkpoint takes its turns, too. --compile: so does `torch.compile` in the fastest precision, the time it takes said.
--processor-time: where other work shares the machine, the processor's time of all threads, not the clock's. --sweep:
other resolutions, batches and keypoints, too. Below the table: a single frame's latency (by the clock), and the share
of what large matrix products reach on the machine in that precision.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from animate_speed import drive_all, moving_gradient, network_alone, seconds_of
from machine import describe
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mtanimate.checkpoints.file import read_checkpoint, write_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.config import ModelConfig, load_preset
from mtanimate.data.clips import find_clips
from mtanimate.devices import DTYPES, choose_device, describe_device, has_bf16
from mtanimate.faces.detection import square_frames
from mtanimate.inference.cuda_graphs import CapturedNetwork
from mtanimate.inference.engine import PreparedNetwork
from mtanimate.inference.loading import Network, load_network
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.models.animator import Animator
from mtanimate.video.footage import open_footage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--preset")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8, help="frames of a turn")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--exported", type=Path, nargs="*", default=[])
    parser.add_argument("--allow-code", action="store_true", help="as mtanimate animate has it")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.preset:
        config = load_preset(options.preset)
        network = random_network(config.model)
        if options.save:
            write_checkpoint(options.save, network, config, {})
            return
    else:
        network = read_checkpoint(resolve(options.checkpoint)).animator
    network = network.to(device)
    print(describe())
    name = options.preset or options.checkpoint
    print(f"{name}, {network.config.resolution} pixels, {describe_device(device)}, batches of {options.batch}\n")
    compare(network, options)
    if options.sweep:
        sweep(network, options)


def random_network(config: ModelConfig) -> Animator:
    torch.manual_seed(0)
    return Animator(config).eval().requires_grad_(False)


def precisions(device: torch.device) -> list[str]:
    return ["fp32", *(["bf16"] if has_bf16(device) else []), *(["fp16"] if device.type == "cuda" else [])]


def compare(network: Animator, options: argparse.Namespace) -> None:
    pictures = frames_of(options.clips, network.config.resolution, options.frames)
    clock = time.process_time if options.processor_time else time.perf_counter
    print("| way | ms a frame | of the field's | largest difference | PSNR, dB |\n| --- | --- | --- | --- | --- |")
    exact = fields_way(network, pictures)()
    ways: dict[str, tuple[Network | PreparedNetwork, str]] = {
        precision: (copy.deepcopy(network), precision) for precision in precisions(network.device)
    }
    for folder in options.exported:
        loaded = load_network(str(folder.absolute()), allow_code=options.allow_code)
        ways[f"{loaded.precision} by {loaded.backend}"] = (loaded.network, loaded.precision)
    times = {}

    def turns(name: str, ours: Callable[[], Tensor]) -> None:
        slow, fast = in_turns([fields_way(network, pictures), ours], options.pairs, clock)
        times[name] = statistics.median(fast) / len(pictures)
        difference = (ours() - exact).abs()
        psnr = -10 * torch.log10(difference.square().mean().clamp_min(1e-20))
        if name == "fp32":
            print(f"| the field's | {per_frame(slow, pictures):.3g} | 1 | | |")
        ratio = statistics.median(one / other for one, other in zip(slow, fast, strict=True))
        print(
            f"| {name} | {1000 * times[name]:.3g} | {ratio:.2f} times as fast | {difference.max():.1e} | {psnr:.1f} |",
            flush=True,
        )

    for name, (animator, precision) in ways.items():
        turns(name, network_alone(animator, precision, pictures, options.batch))
    best = min(precisions(network.device), key=lambda precision: times[precision])
    if options.compile:
        ours = compiled(network, best, pictures, options.batch)
        seconds = seconds_of(ours)
        turns(f"{best}, compiled in {seconds:.0f} s", ours)
    share = share_of_peak(network, best, times[best], clock)
    print(f"\n{best}: {1 / times[best]:.4g} frames/s, {share:.0%} of what a matrix product reaches")
    median, slow = latency(network, best, pictures)
    print(f"a single frame, from memory to memory: {1000 * median:.3g} ms, one of a hundred {1000 * slow:.3g} ms")


def launched(network: Animator, precision: str, pictures: Tensor, batch: int) -> Callable[[], Tensor]:
    """As `network_alone`, without CUDA graphs: kernels are launched one by one."""
    predictor = Predictor(copy.deepcopy(network), precision, print)
    if isinstance(predictor.network, CapturedNetwork):
        predictor.network = predictor.network.animator
    return drive_all(predictor, pictures, batch)


def compiled(network: Animator, precision: str, pictures: Tensor, batch: int) -> Callable[[], Tensor]:
    """The network's three parts by `torch.compile`, each for the sizes that occur."""
    predictor = Predictor(copy.deepcopy(network), precision, print)
    animator = predictor.network.animator if isinstance(predictor.network, CapturedNetwork) else predictor.network
    for part, method in (("motion_estimator", "forward"), ("dense_motion", "forward"), ("generator", "decode")):
        module = getattr(animator, part)
        setattr(module, method, torch.compile(getattr(module, method)))
    return drive_all(predictor, pictures, batch)


def share_of_peak(
    network: Animator, precision: str, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Of the arithmetic a second of a large matrix product: what a frame needs in that of `seconds`."""
    side = network.config.resolution
    frame = torch.zeros(1, 3, side, side, device=network.device)
    with torch.no_grad():
        source = network.encode_source(frame)
        with FlopCounterMode(display=False) as counter:
            network.drive(source, network.estimate_motion(frame))
    size = 8192 if network.device.type == "cuda" else 2048
    matrix = torch.rand(size, size, device=network.device, dtype=DTYPES[precision])
    times = in_turns([lambda: (matrix @ matrix)[None, None]], 5, clock)[0]
    return counter.get_total_flops() / seconds * statistics.median(times) / (2 * size**3)


def latency(network: Animator, precision: str, pictures: Tensor) -> tuple[float, float]:
    """Seconds from a driving frame in the computer's memory to its result there: the median, the 99th percentile."""
    predictor = Predictor(copy.deepcopy(network), precision, print)
    source = predictor.encode(pictures[:1])
    times = []
    for frame in pictures.split(1) * 4:
        started = time.perf_counter()
        to_frames(predictor.drive(source, predictor.estimate(frame)))
        times.append(time.perf_counter() - started)
    percentiles = statistics.quantiles(times[len(pictures) :], n=100, method="inclusive")
    return percentiles[49], percentiles[98]


def frames_of(clips: Path | None, resolution: int, count: int) -> Tensor:
    """uint8 (T, 3, R, R): every tenth frame of the first clip, or a moving gradient."""
    if clips is None:
        return torch.from_numpy(moving_gradient(count, resolution)).permute(0, 3, 1, 2).contiguous()
    clip = find_clips(clips)[0]
    (frames,) = islice(open_footage(clip.path).batches(count, step=10), 1)
    return square_frames(frames, resolution)


def fields_way(network: Animator, pictures: Tensor) -> Callable[[], Tensor]:
    frames = pictures.to(network.device).float() / 255

    @torch.no_grad()
    def run() -> Tensor:
        source = network.estimate_motion(frames[:1])
        driven = []
        for frame in frames.split(1):
            motion = network.estimate_motion(frame)
            driven.append(network.drive(network.encode_source(frames[:1], source), motion))
        return torch.cat(driven)

    return run


def in_turns(
    runs: list[Callable[[], Tensor]], pairs: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each, a list for each run."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(pairs + 1):
        for run, times in zip(runs, seconds, strict=True):
            start = clock()
            run()[0, 0, 0, 0].item()  # a GPU is waited for
            if turn:
                times.append(clock() - start)
    return seconds


def per_frame(seconds: list[float], pictures: Tensor) -> float:
    return 1000 * statistics.median(seconds) / len(pictures)


def sweep(network: Animator, options: argparse.Namespace) -> None:
    """Milliseconds a frame, of networks with random weights where the size is not the given one's."""
    config = network.config
    print(f"\n| ms a frame | {' | '.join(precisions(network.device))} |")
    print("| --- " * (1 + len(precisions(network.device))) + "|")
    variants = {f"{side} x {side}": (replace(config, resolution=side), 4) for side in (128, 256, 384, 512)}
    variants |= {f"batches of {batch}": (config, batch) for batch in (1, 2, 4, 8)}
    variants |= {f"{parts} keypoints": (replace(config, num_keypoints=parts), 4) for parts in (5, 10, 20)}
    for name, (changed, batch) in variants.items():
        cells = []
        for precision in precisions(network.device):
            pictures = frames_of(None, changed.resolution, max(batch, 4))
            run = network_alone(random_network(changed).to(network.device), precision, pictures, batch)
            cells.append(f"{per_frame(in_turns([run], 3)[0], pictures):.3g}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
