"""A shadow process that tells every few milliseconds and is patient for a moment, as ``PACE`` says."""

import json
import sys

from greenroom_runtime.shadow.process import Pace, main

if __name__ == "__main__":
    pace = Pace(**json.loads(sys.argv.pop(1)))
    sys.exit(main(pace))
