"""Pictures and videos, in and out: files on one side, uint8 RGB arrays on the other."""

from mtanimate.video.encoding import check_output
from mtanimate.video.image import read_image, write_image
from mtanimate.video.reader import VideoReader
from mtanimate.video.sound import Sound
from mtanimate.video.writer import VideoWriter

__all__ = ["Sound", "VideoReader", "VideoWriter", "check_output", "read_image", "write_image"]
