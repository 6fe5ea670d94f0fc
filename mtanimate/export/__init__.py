"""The command `mtanimate export`: networks as programs that run without this package."""
