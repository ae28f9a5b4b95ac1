"""Generates digits with the decoder alone: no encoder, no data, no network.

    python eval_genresult.py                               # 100 digits of the pretrained weights
    python eval_genresult.py --num 1000000 --seed 7        # a million, in constant memory
    python eval_genresult.py --temperature 0.7             # closer to the mean of the prior
    python eval_genresult.py --interpolate --traverse      # walks through the latent space
    python eval_genresult.py --export decoder              # a SavedModel to take away

z is drawn from the model's prior N(0, I). Writes generated.png (the first 100 digits) and
generated.npz (key `images`, uint8 (num, 28, 28), uncompressed) to --output_dir.
"""

import itertools
import os
import sys
import zipfile
from collections import deque

import flags
from flags import UserError

# Digits come in chunks of one size, so that the first n of a seed are the same for any --num.
CHUNK = 1000
# Where one chunk waits for the slower of its threads, or for the disk, another goes on.
AT_ONCE = 3
SHOWN = 100
STEPS = 11
ROWS = 10
MANIFOLD_SIDE = 20
DEVIATIONS = 3


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
    group = parser.add_argument_group("walks through the latent space, each a picture more")
    group.add_argument(
        "--interpolate",
        action="store_true",
        help=f"from one draw to another along the sphere, the first {ROWS} pairs of the seed",
    )
    group.add_argument(
        "--traverse",
        action="store_true",
        help=f"the {ROWS} most active dimensions of z, one by one, around the seed's first draw",
    )
    group.add_argument(
        "--manifold",
        action="store_true",
        help="all of a two-dimensional z at equal steps of the prior's probability",
    )
    flags.add_export_flag(parser, "decoder (z -> images in [0, 1])")
    flags.add_picture_flags(parser)
    return parser


def main(argv=None):
    """Runs the script with the flags `argv`; returns the exit code."""
    return flags.run_script(parser(), run, argv)


def run(args):
    """Weights folder -> the decoder alone -> digits as pictures, as an array, as a SavedModel."""
    import config_file
    import weights

    config = config_file.read(args.load_weight_dir)
    weights.verified_weights(args.load_weight_dir, config)
    require_walkable(args, config)
    flags.writable_folder(args.output_dir, "--output_dir")
    flags.require_new_folder(args.export, "--export")
    import figures

    if args.show:
        figures.require_screen()
    config, decoder = weights.load_decoder(args.load_weight_dir)
    chunks = generate(decoder, config["architecture"]["latent_dim"], args)
    trained_on = config["dataset"]["name"]
    variance = "" if args.temperature == 1 else f"{args.temperature:g}² "
    with flags.disk_errors(f"--output_dir {args.output_dir}"):
        shown = []
        flags.write_whole(
            os.path.join(args.output_dir, "generated.npz"),
            lambda path: shown.append(write_npz(path, chunks, args.num)),
        )
        pictures = [os.path.join(args.output_dir, "generated.png")]
        title = f"{len(shown[0])} draws of z ~ N(0, {variance}I), seed {args.seed}, {trained_on}"
        figures.grid(pictures[0], shown[0], 10, title)
        for name, walk in WALKS.items():
            if getattr(args, name):
                pictures.append(os.path.join(args.output_dir, f"{name}.png"))
                walk(pictures[-1], decoder, config, args)
    names = ", ".join(map(os.path.basename, pictures))
    print(f"Wrote {args.num:,} digits to generated.npz, and {names}, in {args.output_dir}.")
    if args.export:
        with flags.disk_errors(f"--export {args.export}"):
            weights.export_decoder(decoder, args.export)
        print(f"Wrote the decoder as a SavedModel to {args.export}.")
    if args.show:
        figures.show(pictures)


def require_walkable(args, config):
    """Raises `UserError` where a walk was asked for that these weights don't allow."""
    latent_dim = config["architecture"]["latent_dim"]
    if args.manifold and latent_dim != 2:
        raise UserError(
            f"--manifold shows a z of two dimensions, that of {args.load_weight_dir} has "
            f"{latent_dim}: take --interpolate or --traverse, or better_weight/latent2"
        )
    if args.traverse and config["posterior"] is None:
        raise UserError(
            f"--traverse needs the posterior, which config.json of {args.load_weight_dir} lacks: "
            "its run has not finished"
        )


def chunk_of_z(index, latent_dim, args):
    """Returns z of one chunk of the seed's digits, a float32 tensor (CHUNK, latent_dim)."""
    import loop

    noise = loop.noise_like([CHUNK, latent_dim], args.seed, loop.GENERATION_STREAM, index)
    return args.temperature * noise


def draws(count, latent_dim, args):
    """Returns z of the first digits of the seed, float32 (count, latent_dim), count <= CHUNK."""
    return chunk_of_z(0, latent_dim, args).numpy()[:count]


def decoded(decoder, z):
    """Returns the digits of z (n, latent_dim), uint8 (n, 784)."""
    import tensorflow as tf

    import loop

    return loop.as_digits(decoder(tf.constant(z, tf.float32))).numpy()


def interpolate(path, decoder, config, args):
    """Draws rows of digits from one draw of the prior to the next, along the sphere."""
    import numpy as np

    import figures

    pairs = draws(2 * ROWS, config["architecture"]["latent_dim"], args).reshape(ROWS, 2, -1)
    shares = np.linspace(0, 1, STEPS)
    z = np.concatenate([[along_sphere(a, b, share) for share in shares] for a, b in pairs])
    rows = [f"draws {2 * row} and {2 * row + 1}" for row in range(ROWS)]
    title = f"{ROWS} pairs of draws of seed {args.seed}, joined along the sphere"
    names = [f"{share:.1f}" for share in shares]
    figures.grid(path, decoded(decoder, z), STEPS, title, rows, names, "share of the way")


def along_sphere(first, second, share):
    """Spherical interpolation (Shoemake 1985) between two vectors: `first` at 0, `second` at 1.

    A straight line would pass too near the origin, where the prior of a high dimension has
    hardly any mass (White, "Sampling Generative Networks", 2016).
    """
    import numpy as np

    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    angle = np.arccos(np.clip(first @ second / max(lengths, 1e-30), -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * first + share * second
    weights = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    return weights[0] * first + weights[1] * second


def traverse(path, decoder, config, args):
    """Draws one row for each of the most active dimensions, moved over its range."""
    import numpy as np

    import figures

    posterior = {name: np.array(values) for name, values in config["posterior"].items()}
    units = np.argsort(-posterior["KLD"], kind="stable")[:ROWS]
    moves = np.linspace(-DEVIATIONS, DEVIATIONS, STEPS)
    z = np.tile(draws(1, len(posterior["KLD"]), args), (len(units) * STEPS, 1))
    for row, unit in enumerate(units):
        values = posterior["mu_mean"][unit] + moves * posterior["mu_std"][unit]
        z[row * STEPS : (row + 1) * STEPS, unit] = values
    rows = [f"z[{unit}], {posterior['KLD'][unit]:.2f} nats" for unit in units]
    title = (
        f"The {len(units)} dimensions of largest mean KL, around the first draw of seed {args.seed}"
    )
    label = "standard deviations of mu over the training images, from its mean"
    names = [f"{move:+.1f}" for move in moves]
    figures.grid(path, decoded(decoder, z), STEPS, title, rows, names, label)


def manifold(path, decoder, config, args):
    """Draws digits over all of a two-dimensional z (Kingma and Welling 2014, figure 4)."""
    import numpy as np
    from scipy.special import ndtri

    import figures

    side = MANIFOLD_SIDE
    quantiles = ndtri((np.arange(side) + 0.5) / side)
    z = np.stack(np.meshgrid(quantiles, quantiles[::-1]), -1).reshape(-1, 2)
    names = [f"{quantile:+.1f}" for quantile in quantiles]
    title = f"{side}x{side} values of z, at equal steps of the prior's probability"
    figures.grid(
        path, decoded(decoder, z), side, title, [f"z[1] {n}" for n in names[::-1]], names, "z[0]"
    )


WALKS = {"interpolate": interpolate, "traverse": traverse, "manifold": manifold}


def generate(decoder, latent_dim, args):
    """Yields uint8 arrays of at most `CHUNK` digits, (n, 784), `args.num` in all."""
    from concurrent.futures import ThreadPoolExecutor

    import tensorflow as tf
    from keras.utils import Progbar

    import loop

    @tf.function
    def chunk(index):
        return loop.as_digits(decoder(chunk_of_z(index, latent_dim, args)))

    # Traced here, once: the threads would each begin with that.
    chunk = chunk.get_concrete_function(tf.TensorSpec([], tf.int32))
    progress = Progbar(args.num, unit_name="digit") if sys.stdout.isatty() else None
    chunks, ahead = iter(range(-(-args.num // CHUNK))), deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = 0
        while done < args.num:
            for index in itertools.islice(chunks, AT_ONCE - len(ahead)):
                ahead.append(pool.submit(lambda i: chunk(tf.constant(i)).numpy(), index))
            digits = ahead.popleft().result()[: args.num - done]
            done += len(digits)
            if progress:
                progress.update(done)
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
