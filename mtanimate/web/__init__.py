"""The page that `mtanimate web` serves: a second front end, beside the command line, to the same use cases."""
