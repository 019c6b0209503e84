"""Entry point of `python -m scripts.bench`."""

from scripts.bench import backend_of, main
from scripts.cli.command import start

if __name__ == "__main__":
    start("bench", main, backend_of)
