"""Entry point of `python -m scripts.compare`."""

from scripts.cli.command import start
from scripts.compare import main

if __name__ == "__main__":
    start("compare", main)
