"""Pictures and videos: files on one side, uint8 RGB arrays on the other."""

from mtanimate.video.image import read_image, write_image
from mtanimate.video.reader import VideoReader
from mtanimate.video.writer import VideoWriter, check_output

__all__ = ["VideoReader", "VideoWriter", "check_output", "read_image", "write_image"]
