"""Draws the same test images as reconstructed by several weights, one row for each.

    python -m bench.side_by_side weight_l2_1 weight_l2_0.2 --names "beta 1" "beta 0.2"

Writes side_by_side.png to --output_dir: the first 20 test images, and below them their
reconstructions by the weights of each folder, decoded from z = mu.
"""

from __future__ import annotations

import argparse
import os
import sys

import data
from bench import common
from support import analysis, cli, display, files, startup, storage
from support.errors import UserError

COUNT = 20


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.side_by_side", __doc__)
    parser.add_argument("folders", nargs="+", help="weights folders that train.py wrote")
    parser.add_argument("--names", nargs="+", help="names of the rows (default: the folders)")
    parser.add_argument(
        "--title", default="Test images and reconstructions", help="title of the picture"
    )
    common.add_data_flags(parser)
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights folders -> reconstructions of the same images -> one picture."""
    names = args.names or args.folders
    if len(names) != len(args.folders):
        raise UserError(
            f"--names: expected {len(args.folders)} names, one for each folder, got {len(names)}: "
            "give as many names as folders"
        )
    files.writable_folder(args.output_dir)
    images = common.load_data(args).test.images[:COUNT]
    startup.import_tensorflow()
    rows = [display.plots.Row("test image", images)]
    for name, folder in zip(names, args.folders, strict=True):
        vae, _ = storage.weights.load(folder)
        mu, _ = vae.encode(data.to_float(images))
        reconstructed = analysis.metrics.to_uint8(vae.decode(mu)).numpy()
        rows.append(display.plots.Row(name, reconstructed))
    display.plots.draw(os.path.join(args.output_dir, "side_by_side.png"), args.title, rows)
    print(f"Wrote side_by_side.png to {args.output_dir}.")


if __name__ == "__main__":
    sys.exit(main())
