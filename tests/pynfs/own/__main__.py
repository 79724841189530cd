"""Runs the suite: `python3 tests/pynfs/own [--atoll BINARY] [TESTS]`; TESTS as in `test_replay.Slots.test_remove`."""

import argparse
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    root = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
    parser.add_argument("--atoll", default=os.path.join(root, "target/release/atoll"), help="the server's binary")
    parser.add_argument("--directory", help="where servers have their data, instead of the system's temporary directory")
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    os.environ["ATOLL"] = os.path.abspath(args.atoll)
    if args.directory:
        os.environ["ATOLL_TEST_DIR"] = args.directory
    sys.path.insert(0, HERE)
    sys.dont_write_bytecode = True
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(args.tests) if args.tests else loader.discover(HERE)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful())


main()
