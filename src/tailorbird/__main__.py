"""`python -m tailorbird`."""

import sys

from tailorbird.app.cli import main

sys.exit(main())
