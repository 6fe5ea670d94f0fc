"""Faces in pictures: finding them, framing the square about them, and the points of their mesh."""
