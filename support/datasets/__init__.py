"""Reads and downloads data sets, and turns pictures of handwritten digits into 28x28 images.

Modules are imported at first use, so that a script can import all of them at its top and still
answer `--help` at once; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
