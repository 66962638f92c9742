"""Headway: an enterprise ML platform on Ray.

The public names that definitions use are loaded on first use, so that `import headway` costs nothing in replicas and
on the command line.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

