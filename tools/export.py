"""The command of the bring-up document; takes the flags of `occport export`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a clone works without being installed

from occport.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
