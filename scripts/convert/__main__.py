"""Entry point of `python -m scripts.convert`."""

from scripts.cli.command import start
from scripts.convert import main

if __name__ == "__main__":
    start("convert", main)
