"""`python -m parallel_backend_engine FD`: the bridge from an installed package, for those who look for a defect in it."""

import sys

from parallel_backend_engine import bridge

if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: python -m parallel_backend_engine FD   (the library starts this; FD is one end of its socketpair)")
    sys.exit(bridge.main(int(sys.argv[1])))
