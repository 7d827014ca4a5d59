"""python -m dsareid, which is how torchrun starts it: torchrun --nproc-per-node 2 -m dsareid train ..."""

import sys

from dsareid.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
