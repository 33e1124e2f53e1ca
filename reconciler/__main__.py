"""``python -m reconciler`` is the same as ``service-manager``."""

import sys

from reconciler.cli.main import main

sys.exit(main())
