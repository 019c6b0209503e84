"""Draw one process's share of `render`: python -m common.data.demo ROOT TRAIN TEST SIZE SEED SHARE SHARES."""

import sys
from pathlib import Path

from common.data.demo import render_share

if __name__ == "__main__":
    render_share(Path(sys.argv[1]), *map(int, sys.argv[2:]))
