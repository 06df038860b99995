"""A child process that looks whether a Ray cluster lets strangers in: it comes without a token.

`python -m corral.cluster.probe ADDRESS` ends with 0 when it was refused, 3 when it was let in, 1 when nothing answered.
"""

import sys

REFUSED, LET_IN = 0, 3


def main(address: str) -> int:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address)
    except AuthenticationError:
        return REFUSED
    return LET_IN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
