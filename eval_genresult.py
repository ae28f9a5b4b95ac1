"""Generates digits with the decoder alone: no encoder, no data, no network.

    python eval_genresult.py                               # 100 digits of the pretrained weights
    python eval_genresult.py --num 1000000 --seed 7        # a million, in constant memory
    python eval_genresult.py --temperature 0.7             # closer to the mean of the prior

z is drawn from the model's prior N(0, I). Writes generated.png (the first 100 digits) and
generated.npz (key `images`, uint8 (num, 28, 28), uncompressed) to --output_dir.
"""

import os
import sys
import zipfile

import flags

# Digits come in chunks of one size, so that the first n of a seed are the same for any --num.
CHUNK = 1000
SHOWN = 100


def parser():
    """Returns the parser of this script's flags."""
    parser = flags.script_parser("eval_genresult.py", __doc__)
    parser.add_argument(
        "--load_weight_dir", default="./better_weight", help="a folder that train.py wrote"
    )
    parser.add_argument("--num", type=flags.integer(1), default=100, help="how many digits")
    parser.add_argument(
        "--temperature",
        type=flags.number(0),
        default=1.0,
        help="standard deviation of z; 1 is the prior",
    )
    flags.add_picture_flags(parser)
    return parser


def main(argv=None):
    """Runs the script with the flags `argv`; returns the exit code."""
    return flags.run_script(parser(), run, argv)


def run(args):
    """Weights folder -> the decoder alone -> digits as a picture and as an array."""
    import config_file
    import weights

    weights.verified_weights(args.load_weight_dir, config_file.read(args.load_weight_dir))
    flags.writable_folder(args.output_dir, "--output_dir")
    import figures

    if args.show:
        figures.require_screen()
    config, decoder = weights.load_decoder(args.load_weight_dir)
    chunks = generate(decoder, config["architecture"]["latent_dim"], args)
    with flags.disk_errors(f"--output_dir {args.output_dir}"):
        shown = []
        flags.write_whole(
            os.path.join(args.output_dir, "generated.npz"),
            lambda path: shown.append(write_npz(path, chunks, args.num)),
        )
        trained_on = config["dataset"]["name"]
        variance = "" if args.temperature == 1 else f"{args.temperature:g}² "
        picture = os.path.join(args.output_dir, "generated.png")
        figures.grid(
            picture,
            shown[0],
            10,
            f"{len(shown[0])} draws of z ~ N(0, {variance}I), seed {args.seed}, {trained_on}",
        )
    print(f"Wrote {args.num:,} digits to generated.npz, and generated.png, in {args.output_dir}.")
    if args.show:
        figures.show([picture])


def generate(decoder, latent_dim, args):
    """Yields uint8 arrays of at most `CHUNK` digits, (n, 784), `args.num` in all."""
    import tensorflow as tf
    from keras.utils import Progbar

    import loop

    @tf.function
    def chunk(index):
        noise = loop.noise_like([CHUNK, latent_dim], args.seed, loop.GENERATION_STREAM, index)
        grey = tf.sigmoid(decoder(args.temperature * noise))
        return tf.cast(tf.round(255.0 * grey), tf.uint8)

    progress = Progbar(args.num, unit_name="digit") if sys.stdout.isatty() else None
    for first in range(0, args.num, CHUNK):
        digits = chunk(tf.constant(first // CHUNK)).numpy()[: args.num - first]
        if progress:
            progress.update(first + len(digits))
        yield digits


def write_npz(path, chunks, num):
    """Streams digits into an uncompressed `.npz`, and returns the first `SHOWN` of them."""
    import numpy as np

    shown = []
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (num, 28, 28)}
        )
        for digits in chunks:
            shown = shown or list(digits[:SHOWN])
            file.write(digits.data)
    return np.stack(shown)


if __name__ == "__main__":
    sys.exit(main())
