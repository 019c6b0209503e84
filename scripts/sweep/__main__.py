"""Entry point of `python -m scripts.sweep`."""

from scripts.cli.command import start
from scripts.sweep import environment_wanted, main

if __name__ == "__main__":
    start("sweep", main, environment_wanted)
