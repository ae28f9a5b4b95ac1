"""Mutation testing: changes modules in one small place at a time, to find untested behaviour.

    pip install mutmut
    python -m tests.mutation support/training/schedule.py          # every mutant of a module
    python -m tests.mutation --sample 40 train.py model.py         # forty of each, drawn by --seed

The mutants are mutmut's. Its own runner either starts TensorFlow before it forks, which hangs, or
imports it for each mutant, which takes most of the time. So here, a process that has imported
TensorFlow, but not started it, forks one process per mutant. Each runs the tests of the mutated
module on a copy of the tree, until one fails. Prints the diff of each mutant that survives, and a
table; the exit code is 1 if there are any. Uses one core; takes some seconds per mutant.
"""

import argparse
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COPIED = ("support", "tests", "better_weight", "bench", "expimg", ".ci")
# Tests besides the test module of the same name. Slow ones come last.
MORE_TESTS = {
    "train.py": ["tests/training/test_run.py"],
    "model.py": ["tests/analysis/test_likelihood.py"],
}
SKIPPED = "not slow"
SLOWEST_SECONDS = 600


def main(argv=None):
    """Runs the mutants of some modules; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="a path below the root")
    parser.add_argument("--sample", type=int, help="mutants of each module (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--tests", nargs="+", help="what to run instead of the module's own tests")
    parser.add_argument("-k", default="", help="as pytest's: which of these tests")
    args = parser.parse_args(argv)
    table, survivors = [], 0
    with tempfile.TemporaryDirectory() as work:
        copy_tree(work)
        os.chdir(work)
        sys.dont_write_bytecode = True
        sys.path.insert(0, work)
        import_heavy()
        for module in args.modules:
            counts = tried(module, args)
            survivors += counts["survived"]
            table.append((module, counts))
    print(f"{'module':44}{'mutants':>9}{'killed':>9}{'too slow':>10}{'survived':>10}")
    for module, counts in table:
        columns = counts["killed"], counts["too slow"], counts["survived"]
        print(f"{module:44}{sum(columns):9}{columns[0]:9}{columns[1]:10}{columns[2]:10}")
    return 1 if survivors else 0


def copy_tree(work):
    """Copies what the tests need to `work`; the tree itself is never changed."""
    for name in os.listdir(ROOT):
        path = os.path.join(ROOT, name)
        if os.path.isfile(path):
            shutil.copy(path, work)
        elif name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, os.path.join(work, name), ignore=ignored)
    # mutmut must know where the code is, although here it only makes the mutants.
    with open(os.path.join(work, "setup.cfg"), "a", encoding="utf-8") as file:
        file.write("\n[mutmut]\nsource_paths=support\n")


def import_heavy():
    """Imports slow modules, but does not list the devices, which would start threads."""
    from support import startup

    with startup.quiet_import():
        import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.mixture  # noqa: F401
    import tensorboard.backend.event_processing.event_accumulator  # noqa: F401


def tried(module, args):
    """Runs the mutants of one module; returns how many ended in which way."""
    with open(module, encoding="utf-8") as file:
        source = file.read()
    tests = args.tests or tests_of(module)
    command = ["-n0", "-q", "-x", "-p", "no:cacheprovider", "-m", SKIPPED, "-k", args.k, *tests]
    started = time.monotonic()
    if run(command, SLOWEST_SECONDS) != "survived":
        raise SystemExit(f"{module}: its tests fail without a mutation: {' '.join(tests)}")
    patience = 60 + 5 * (time.monotonic() - started)
    mutants = mutants_of(module, source)
    if args.sample and args.sample < len(mutants):
        mutants = random.Random(args.seed).sample(mutants, args.sample)
    counts = {"killed": 0, "too slow": 0, "survived": 0}
    for number, mutant in enumerate(mutants, 1):
        write(module, mutant)
        end = run(command, patience)
        write(module, source)
        counts[end] += 1
        if end != "killed":
            print(f"{module}, mutant {number} of {len(mutants)}: {end}")
            print("".join(difference(source, mutant)), flush=True)
        elif number % 10 == 0:
            print(f"{module}, {number} of {len(mutants)}: {counts}", flush=True)
    return counts


def tests_of(module):
    """The test modules of a module: the one of the same name, then others."""
    folder, name = os.path.split(module.removeprefix("support/"))
    return [os.path.join("tests", folder, f"test_{name}"), *MORE_TESTS.get(module, [])]


def mutants_of(module, source):
    """The complete source of each mutant of a module."""
    from mutmut.mutation import file_mutation

    tree, mutations, *_ = file_mutation.create_mutations(module, source)
    changed = (tree.deep_replace(one.original_node, one.mutated_node) for one in mutations)
    return [mutant.code for mutant in changed if mutant.code != source]


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def run(command, seconds):
    """Runs pytest in a forked process; returns how it ended."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for name in list(sys.modules):
            # The runner itself may have imported the mutated module.
            if name.partition(".")[0] in ("support", "tests", "train", "model", "data"):
                del sys.modules[name]
        import pytest

        code = 70
        try:
            code = int(pytest.main(command))
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "killed" if status else "survived"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too slow"


def difference(source, mutant):
    lines = (text.splitlines(keepends=True) for text in (source, mutant))
    return difflib.unified_diff(*lines, n=0)


if __name__ == "__main__":
    sys.exit(main())
