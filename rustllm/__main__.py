"""``python -m rustllm`` is the ``rustllm`` command."""

import sys

try:
    from rustllm.cli import main
except KeyboardInterrupt:  # as the command itself answers, also while it is being imported
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
