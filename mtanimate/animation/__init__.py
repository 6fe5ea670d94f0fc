"""Use case `animate`: a source picture and a driving video -> a video."""
