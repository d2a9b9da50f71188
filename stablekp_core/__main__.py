"""`python -m stablekp_core`."""

import sys

from .cli.main import main

sys.exit(main())
