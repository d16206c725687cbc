"""``python -m rustllm`` is the ``rustllm`` command."""

import sys

from rustllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
