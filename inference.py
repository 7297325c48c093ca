"""The familiar command: `python inference.py --enable_profile`. See `--help`."""

import sys

from glassworld.cli import inference

if __name__ == "__main__":
    sys.exit(inference())
