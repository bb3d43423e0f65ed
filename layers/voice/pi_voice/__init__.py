"""Pi Voice: one voice call, two real-time connections, and results one can trust."""

import gc
import os

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    gc.disable()  # what a container makes while it starts, stays; `http.run` turns it on again (docs/adr/0019)
