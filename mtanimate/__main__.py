"""`python -m mtanimate`: the same as the command."""

from mtanimate.cli import main

if __name__ == "__main__":
    main()
