"""One process of `render`: python -m common.demo ROOT TRAIN TEST SIZE SEED SHARE SHARES."""

import sys
from pathlib import Path

from common.demo import render_share

if __name__ == "__main__":
    render_share(Path(sys.argv[1]), *map(int, sys.argv[2:]))
