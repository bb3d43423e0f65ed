"""`python -m local`: check the Python version, then run command.py.

A Python that is too old reads only this file and __init__.py, so both avoid newer syntax.
"""

import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this file checks the version)
    sys.exit("Pi Voice needs Python 3.11 or later; this is %d.%d." % sys.version_info[:2])  # noqa: UP031

signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet

try:
    from local.command import main
except ImportError as missing:
    package = str(missing.name).split(".")[0]
    if package in ("local", "None"):
        raise
    sys.exit("The Python package %s is missing: `make run` installs all that is needed." % package)  # noqa: UP031

main()
