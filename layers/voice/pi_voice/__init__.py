"""Pi Voice: voice calls over LiveKit and Gemini Live, with validated results."""

import gc
import os

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    gc.disable()  # objects of the cold start are never garbage; `runner.run` enables it again (docs/adr/0019)
