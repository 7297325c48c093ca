"""`python -m glassworld` is `glassworld`."""

import sys

from glassworld.cli import main

sys.exit(main())
