"""The command `animate`: a source picture and a driving video become a video."""
