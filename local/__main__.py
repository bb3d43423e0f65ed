"""`python -m local`: checks the interpreter, then hands over to command.py.

Only this file and __init__.py are read by a Python that is too old, so they keep to what every Python understands.
"""

import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036 (the point of this file)
    sys.exit("Pi Voice needs Python 3.11 or later; this is %d.%d." % sys.version_info[:2])  # noqa: UP031

signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing has to be tidied up yet, so Ctrl-C just ends

try:
    from local.command import main
except ImportError as missing:
    package = str(missing.name).split(".")[0]
    if package in ("local", "None"):
        raise
    sys.exit("The Python package %s is missing: `make run` installs all that is needed." % package)  # noqa: UP031

main()
