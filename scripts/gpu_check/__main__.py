"""Entry point of `python -m scripts.gpu_check`."""

import sys

from scripts.gpu_check import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
