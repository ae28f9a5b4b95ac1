"""The contenders of the benchmarks: one training loop each, as short as its framework allows.

    python -m bench.contenders ours           # then an empty line on stdin for each epoch
    python -m bench.contenders jax_scan --batch 1024 --data_dir ~/mnist

Each runs in a process of its own, so that their thread pools do not compete, and waits between its
turns. All but PyTorch's example train the same model: the same layers, Glorot-uniform initial
weights, Bernoulli loss plus KL, one sample of z, Adam, float32, shuffled batches of the same size,
images kept in memory. Each line on stdin is answered with a line of JSON: the seconds that the turn
took, its mean loss and, for other frameworks, the -ELBO on the validation images, which is not
timed. Exit code 5: the framework is not installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from bench import common
from support import cli, startup

EXIT_ABSENT = 5
# Adam's epsilon: Keras's default, which differs from PyTorch's.
EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Contender:
    """What a contender does in its turn; calling it is one turn.

    Attributes:
        work: does the work of one turn and returns the mean loss.
        validate: returns the -ELBO on the validation images; None: this is not measured.
    """

    work: Callable[[], SupportsFloat]
    validate: Callable[[], SupportsFloat] | None = None

    def __call__(self) -> SupportsFloat:
        """Works once; returns the mean loss."""
        return self.work()


def in_module(module: str, function: str) -> Callable[[argparse.Namespace], Contender]:
    """Returns a function that imports a module of this package only when it is called.

    So each process imports only one framework.
    """

    def build(args: argparse.Namespace) -> Contender:
        return getattr(importlib.import_module(f"bench.{module}"), function)(args)

    return build


# Name -> function that takes the flags and returns the contender.
CONTENDERS = {
    "ours": in_module("own", "plain"),
    "ours_default": in_module("own", "default_recipe"),
    "validation": in_module("own", "validation"),
    "keras_fit": in_module("keras_baseline", "fit"),
    "keras_fit_compiled": in_module("keras_baseline", "fit_compiled"),
    "torch_eager": in_module("torch_baseline", "eager"),
    "torch_compile": in_module("torch_baseline", "compiled"),
    "torch_example": in_module("torch_example", "from_loader"),
    "torch_example_in_memory": in_module("torch_example", "in_memory"),
    "jax_scan": in_module("jax_baseline", "scan"),
    "matmul_numpy": in_module("matmul", "numpy"),
    "matmul_tensorflow": in_module("matmul", "tensorflow"),
    "matmul_jax": in_module("matmul", "jax"),
}
# These start as our scripts do, with their TensorFlow settings; the others start without these.
OWN = ("ours", "ours_default", "validation")


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.contenders", __doc__)
    cli.add_seed_flag(parser)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--batch", type=cli.integer(1), default=100, help="images per step")
    parser.add_argument("--images", type=cli.integer(1), default=55_000, help="images per epoch")
    parser.add_argument(
        "--hidden_units",
        type=cli.integer(1),
        nargs="+",
        default=[512, 256],
        help="widths of the encoder's hidden layers",
    )
    parser.add_argument("--latent_dim", type=cli.integer(1), default=128, help="size of z")
    parser.add_argument(
        "--activation",
        choices=("silu", "relu"),
        default="silu",
        help="activation of the hidden layers",
    )
    parser.add_argument(
        "--learning_rate", type=cli.number(1e-30, 1), default=1e-3, help="Adam's learning rate"
    )
    parser.add_argument(
        "--samples",
        type=cli.integer(1),
        default=1,
        help="samples of z for each image (only `ours`)",
    )
    common.add_data_flags(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> int:
    """Builds one contender and lets it take a turn for each line on stdin."""
    # Answers go to the original stdout; whatever a framework prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    started = time.perf_counter()
    try:
        if args.name in OWN:
            startup.import_tensorflow()
        contender = CONTENDERS[args.name](args)
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed", file=sys.stderr)
        return EXIT_ABSENT
    print(json.dumps({"seconds": time.perf_counter() - started}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        # Converting the loss to a number waits for everything that runs asynchronously.
        loss = float(contender())
        answer = {"seconds": time.perf_counter() - started, "loss": loss}
        if contender.validate:
            answer["validation"] = float(contender.validate())
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def training_images(args: argparse.Namespace) -> NDArray[np.uint8]:
    """Returns whole batches of images, uint8 (n, 784), repeated if the data set has too few."""
    images = common.load_data(args).train.images
    count = args.images // args.batch * args.batch
    return np.resize(images, (count, images.shape[1]))


def validation_images(args: argparse.Namespace) -> NDArray[np.float32]:
    """Returns the validation images, float32 (n, 784) in [0, 1]."""
    return common.load_data(args).validation.images.astype(np.float32) / np.float32(255)


if __name__ == "__main__":
    sys.exit(main())
