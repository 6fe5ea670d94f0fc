"""Batches of pairs: shuffled epochs, divided between workers, decoded ahead by other processes."""

import errno
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, get_worker_info

from mtanimate.data.augmentation import Recipe, augment
from mtanimate.data.pairs import Pair, PairDataset, Unreadable
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.models.losses.motion import Transform
from mtanimate.signals import ENDING, end_with_maker, leave_to_parent

AHEAD = 4  # batches that a decoding process prepares


@dataclass(frozen=True)
class Batch:
    """What a step trains on.

    Attributes:
        source: (B, 3, R, R) in [0, 1].
        driving: The same shape.
        transform: The transforms of the equivariance loss, of B pairs.
        landmarks: (2, B, 478, 2) in coordinates: of the sources, then of the driving frames; NaN where there is no
            face. None where no loss needs them.
        people: (2, B, 1, R, R) in [0, 1]: how much of each pixel is a person. 1 throughout pairs that have their own
            background; None where all have.
        clips: As in `Pair`.
        skipped: As in `Pair`.
        faces: The indices of the sources that have a face, and those of the driving frames; None without landmarks.
        full: (2, B, 3, F, F) in [0, 1]: sources and driving frames before they were reduced to R; None where they were
            not.
    """

    source: Tensor
    driving: Tensor
    transform: Transform
    landmarks: Tensor | None
    people: Tensor | None
    clips: list[str]
    skipped: list[str]
    faces: tuple[Tensor, Tensor] | None = None
    full: Tensor | None = None


@dataclass(frozen=True)
class RawBatch:
    """What the loader reads: frames, uint8 (2, B, 3, R, R), and the recipe by which the device augments them.

    Everything else is as in `Batch`.
    """

    frames: Tensor
    recipe: Recipe
    transform: Transform
    landmarks: Tensor | None
    clips: list[str]
    skipped: list[str]
    faces: tuple[Tensor, Tensor] | None

    def shared(self) -> "RawBatch":
        """Move it to memory that other processes can read. Raises RuntimeError where there is no room."""
        return self._each(Tensor.share_memory_)

    def pin_memory(self) -> "RawBatch":
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "RawBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def augmented(self, resolution: int | None = None) -> Batch:
        """Augment the frames. Pictures have the channels-last layout, with which convolutions are fastest.

        resolution: R, to which larger frames are reduced; None for that of the frames.
        """
        pictures, people = augment(self.frames, self.recipe)
        landmarks, full, side = self.landmarks, None, pictures.shape[-1]
        if resolution is not None and resolution != side:
            full, pictures = pictures, _reduced(pictures, resolution)
            people = None if people is None else _reduced(people, resolution)
            # -1 and 1 are the centres of the outermost pixels, which lie nearer to the edge in larger pictures.
            scale = (1 - 1 / side) / (1 - 1 / resolution)
            landmarks = None if landmarks is None else landmarks * scale
        source, driving = (frames.contiguous(memory_format=torch.channels_last) for frames in pictures)
        return Batch(source, driving, self.transform, landmarks, people, self.clips, self.skipped, self.faces, full)

    def _each(self, do: Callable[[Tensor], Tensor]) -> "RawBatch":
        transform = Transform(do(self.transform.theta), do(self.transform.control_points), do(self.transform.weights))
        landmarks = None if self.landmarks is None else do(self.landmarks)
        faces = None if self.faces is None else (do(self.faces[0]), do(self.faces[1]))
        return RawBatch(do(self.frames), self.recipe.each(do), transform, landmarks, self.clips, self.skipped, faces)


def _reduced(pictures: Tensor, side: int) -> Tensor:
    """(2, B, C, F, F) -> (2, B, C, side, side), anti-aliased."""
    flat = pictures.flatten(0, 1)
    reduced = F.interpolate(flat, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return reduced.clamp(0, 1).unflatten(0, pictures.shape[:2])


def collate(drawn: list[Pair | Unreadable]) -> RawBatch | Unreadable:
    pairs = []
    for item in drawn:
        if isinstance(item, Unreadable):
            return item
        pairs.append(item)
    # Stacked with colours last, as they are in files and caches: this is a single copy.
    frames = torch.stack([pair.frames.permute(0, 2, 3, 1) for pair in pairs], dim=1).permute(0, 1, 4, 2, 3)
    transform = Transform(
        torch.cat([pair.transform.theta for pair in pairs]),
        pairs[0].transform.control_points,
        torch.cat([pair.transform.weights for pair in pairs]),
    )
    found = [pair.landmarks for pair in pairs if pair.landmarks is not None]
    landmarks = torch.stack(found, dim=1) if found else None
    faces = None
    if landmarks is not None:
        of_sources, of_driving = (~meshes.isnan().flatten(1).any(dim=1) for meshes in landmarks)
        faces = of_sources.nonzero().flatten(), of_driving.nonzero().flatten()
    skipped = [line for pair in pairs for line in pair.skipped]
    recipe = Recipe.stack([pair.recipe for pair in pairs])
    batch = RawBatch(frames, recipe, transform, landmarks, [pair.clip for pair in pairs], skipped, faces)
    # PyTorch itself would do this in a thread, where a failure is only printed, and the batch is waited for forever.
    return batch if get_worker_info() is None else batch.shared()


class EndlessEpochs(Sampler[list[tuple[int, int]]]):
    """Batches of (number of the pair, entry), epoch after epoch, from pair `start` on.

    Each epoch is a permutation of all entries, `repeats` times each; a batch may reach into the next epoch. The pairs
    of a step have consecutive numbers, of which worker `rank` of `count` takes its share, in `parts` batches. So no
    pair is left out or taken twice, with any number of workers.
    """

    def __init__(
        self, entries: int, repeats: int, seed: int, *, batch_size: int, start: int, rank: int, count: int, parts: int
    ) -> None:
        self.entries, self.repeats, self.seed = entries, repeats, seed
        self.batch_size, self.start = batch_size, start
        self.rank, self.count, self.parts = rank, count, parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.count
        part = share // self.parts
        epoch, order = -1, np.empty(0, int)
        step_start = self.start
        while True:
            for begin in range(self.rank * share, (self.rank + 1) * share, part):
                batch = []
                for number in range(step_start + begin, step_start + begin + part):
                    if number // (self.entries * self.repeats) != epoch:
                        epoch = number // (self.entries * self.repeats)
                        order = self._order(epoch)
                    batch.append((number, int(order[number % len(order)])))
                yield batch
            step_start += self.batch_size

    def _order(self, epoch: int) -> np.ndarray:
        entries = np.repeat(np.arange(self.entries), self.repeats)
        return np.random.default_rng((self.seed, 1, epoch)).permutation(entries)


def load_batches(
    dataset: PairDataset, *, start: int, processes: int, pinned: bool, rank: int = 0, count: int = 1
) -> Generator[RawBatch, None, None]:
    """Endless batches of one worker.

    Args:
        dataset: The pairs.
        start: The number of the first pair.
        processes: How many processes decode ahead; 0 decodes when a batch is asked for. The batches are the same.
        pinned: Whether to put batches into pinned memory, from which a GPU copies faster.
        rank: The number of the worker.
        count: The number of workers.

    Raises:
        InputError: No clip can be read.
        MTAnimateError: The system ended a decoding process, or has no shared memory for its batches.
    """
    training = dataset.config.training
    epochs = EndlessEpochs(
        len(dataset.entries),
        dataset.config.data.repeats,
        training.seed,
        batch_size=training.batch_size,
        start=start,
        rank=rank,
        count=count,
        parts=training.accumulate,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=epochs,
        num_workers=processes,
        collate_fn=collate,
        pin_memory=pinned,
        prefetch_factor=AHEAD if processes else None,
        worker_init_fn=_start_process,
        generator=torch.Generator(),  # a seed is drawn from it at each start, not from the run's generator
    )
    try:
        for batch in loader:
            if isinstance(batch, Unreadable):
                raise InputError(batch.message)
            yield batch
    except Exception as error:
        # The traceback's frames hold the loader. Without it, the loader's processes end now, not with this process.
        traceback.clear_frames(error.__traceback__)
        if "shared memory" in str(error) or getattr(error, "errno", 0) == errno.ENOSPC:
            raise MTAnimateError(
                "shared memory, by which decoding processes pass batches on, is full: give more (docker run "
                "--shm-size=4g), or lower --workers, down to 0"
            ) from error
        # The latter where it was ended while its batch was fetched.
        if str(error).startswith("DataLoader worker") or isinstance(error, (ConnectionError, EOFError)):
            raise MTAnimateError("a process that decodes was ended: if memory is short, lower --workers") from error
        raise


def _start_process(number: int) -> None:
    """Use one thread, leave signals that are sent to the whole process group to the main process, and end with it."""
    torch.set_num_threads(1)
    leave_to_parent(*ENDING)
    end_with_maker()  # PyTorch looks every five seconds, and where a server forks its processes, for the server's end
