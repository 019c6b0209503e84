"""Entry point of `python -m scripts.check_data`."""

from scripts.check_data import main
from scripts.cli.command import start

if __name__ == "__main__":
    start("check_data", main)
