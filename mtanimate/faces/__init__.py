"""Faces in pictures: finding them, framing the square around them, and the points of their mesh."""
