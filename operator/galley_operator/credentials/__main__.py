"""Prints new keys for a NATS of our own as a Secret, for those who keep their Secrets elsewhere.

python -m galley_operator.credentials NAMESPACE NAME
"""

import json
import sys
import time

from galley_operator.credentials.key_secret import key_secret


def main(arguments: list[str]) -> int:
    """Print the Secret; kubectl and all that seals Secrets read JSON as well as YAML."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m galley_operator.credentials NAMESPACE NAME\n")
        return 2
    namespace, name = arguments
    sys.stdout.write(json.dumps(key_secret(namespace, name, time.time()), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
