"""Use case `export`: a trained network -> graphs that run without this package's classes, compared with PyTorch."""
