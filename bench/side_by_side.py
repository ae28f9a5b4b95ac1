"""Draws what several weights folders make of the same test images, one row of digits each.

    python -m bench.side_by_side weight_l2_1 weight_l2_0.2 --names "beta 1" "beta 0.2"

Writes side_by_side.png to --output_dir: the first 20 test images, and below them the
reconstructions, decoded z = mu, of each folder.
"""

import os
import sys

import data
from support import UserError, cli, files, pictures, weights

COUNT = 20


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.side_by_side", __doc__)
    parser.add_argument("folders", nargs="+", help="weights folders that train.py wrote")
    parser.add_argument("--names", nargs="+", default=[], help="of the rows; default: the folders")
    parser.add_argument("--title", default="Test images and reconstructions", help="of the picture")
    cli.add_data_flags(parser, "MNIST where it can be had, otherwise the embedded digits")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Weights folders -> reconstructions of the same images -> one picture."""
    names = args.names or args.folders
    if len(names) != len(args.folders):
        raise UserError("--names: give one for each folder")
    files.writable_folder(args.output_dir)
    images = data.load(args.dataset, args.data_dir).test.images[:COUNT]
    rows = [("test image", images, ())]
    for name, folder in zip(names, args.folders, strict=True):
        vae, _ = weights.load(folder)
        from support import evaluation

        mu, _ = vae.encode(data.pixels(images))
        rows.append((name, evaluation.as_digits(vae.decode(mu)).numpy(), ()))
    pictures.digits(os.path.join(args.output_dir, "side_by_side.png"), args.title, rows)
    print(f"Wrote side_by_side.png to {args.output_dir}.")


if __name__ == "__main__":
    sys.exit(main())
