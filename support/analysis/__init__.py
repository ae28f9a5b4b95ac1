"""Metrics, likelihood, the fitted prior and samples from it.

Modules are imported at first use, so that a script can name them all at its top and still answer
`--help` at once; __init__.pyi lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
