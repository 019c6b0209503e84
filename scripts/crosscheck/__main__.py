"""Entry point of `python -m scripts.crosscheck`."""

from scripts.cli.command import start
from scripts.crosscheck import main

if __name__ == "__main__":
    start("crosscheck", main)
