"""Entry point of `python -m scripts.run`."""

from scripts.cli.command import start
from scripts.cli.lookup import backend_wanted
from scripts.run import main

if __name__ == "__main__":
    start("run", main, backend_wanted)
