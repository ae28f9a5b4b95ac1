"""Generates digits with the decoder alone: no encoder, no data, no network.

    python eval_genresult.py                               # 100 digits of the pretrained weights
    python eval_genresult.py --num 1000000 --seed 7        # a million, in constant memory
    python eval_genresult.py --temperature 0.7             # closer to the mean of the prior
    python eval_genresult.py --interpolate --traverse      # walks through the latent space

z is drawn from the model's prior N(0, I). Writes generated.png (the first 100 digits) and
generated.npz (key `images`, uint8 (num, 28, 28), uncompressed) to --output_dir.
"""

import itertools
import os
import sys
import zipfile
from collections import deque

import numpy as np

from support import UserError, cli, files, pictures, weights

# Digits come in chunks of one size, so that the first n of a seed are the same for any --num.
CHUNK = 1000
# Where one chunk waits for the slower of its threads, or for the disk, another goes on.
AT_ONCE = 3
SHOWN = 100
STEPS = 11
ROWS = 10
GRID = 20
DEVIATIONS = 3


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("eval_genresult.py", __doc__)
    cli.add_weights_flag(parser)
    parser.add_argument("--num", type=cli.integer(1), default=100, help="how many digits")
    heat = "standard deviation of z; 1 is the prior"
    parser.add_argument("--temperature", type=cli.number(0, 100), default=1.0, help=heat)
    add = parser.add_argument_group("walks in the latent space, each a picture more").add_argument
    joined = f"from one draw to another along the sphere, the first {ROWS} pairs of the seed"
    add("--interpolate", action="store_true", help=joined)
    moved = f"the {ROWS} most active dimensions of z, one by one, around the seed's first draw"
    add("--traverse", action="store_true", help=moved)
    spread = "all of a two-dimensional z at equal steps of the prior's probability"
    add("--manifold", action="store_true", help=spread)
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Weights folder -> the decoder alone -> digits as pictures and as an array."""
    folder = cli.weights_folder(args)
    run, arrays = weights.read(folder, parts=("decoder",))
    latent_dim, posterior = run["architecture"]["latent_dim"], run["posterior"]
    if args.manifold and latent_dim != 2:
        raise UserError(f"--manifold shows a z of two dimensions, not {latent_dim} as in {folder}")
    if args.traverse and posterior is None:
        raise UserError(f"--traverse needs a finished run, and that of {folder} is in progress")
    files.writable_folder(args.output_dir)
    decoder = weights.build(run, arrays)
    chunks = generate(decoder, latent_dim, args.num, args.seed, args.temperature)
    variance = "" if args.temperature == 1 else f"{args.temperature:g}² "
    of = f"seed {args.seed}, {run['dataset']['name']}"
    names = ["generated.png"]

    def path(name):
        return os.path.join(args.output_dir, name)

    with files.disk_errors(args.output_dir):
        shown = []
        files.write_whole(
            path("generated.npz"), lambda name: shown.append(write_npz(name, chunks, args.num))
        )
        title = f"{len(shown[0])} draws of z ~ N(0, {variance}I), {of}"
        pictures.digits(path("generated.png"), title, pictures.in_rows(shown[0], 10))
        drawn = chunk_of_z(0, latent_dim, args.seed, args.temperature).numpy()
        if args.interpolate:
            names.append("interpolate.png")
            interpolate(path(names[-1]), decoder, drawn[: 2 * ROWS], of)
        if args.traverse:
            names.append("traverse.png")
            traverse(path(names[-1]), decoder, drawn[0], posterior, of)
        if args.manifold:
            names.append("manifold.png")
            manifold(path(names[-1]), decoder)
    what = f"{args.num:,} digits to generated.npz, and {', '.join(names)}"
    print(f"Wrote {what}, in {args.output_dir}.")


def chunk_of_z(index, latent_dim, seed, temperature):
    """Returns z of one chunk of the seed's digits, a float32 tensor (CHUNK, latent_dim)."""
    from support import window

    drawn = window.normal([CHUNK, latent_dim], seed, window.GENERATION_STREAM, index)
    return temperature * drawn


def decoded(decoder, z):
    """Returns the digits of z (n, latent_dim), uint8 (n, 784)."""
    import model
    from support import evaluation

    return evaluation.as_digits(model.decode(decoder, z.astype(np.float32))).numpy()


def interpolate(path, decoder, drawn, of):
    """Draws rows of digits from one draw of the prior to the next, along the sphere.

    Args:
        drawn: z, (2 * ROWS, latent_dim).
        of: what they are, for the title.
    """
    shares = np.linspace(0, 1, STEPS)
    pairs = drawn.reshape(ROWS, 2, -1)
    z = np.concatenate([[along_sphere(a, b, share) for share in shares] for a, b in pairs])
    names = [f"draws {2 * row} and {2 * row + 1}" for row in range(ROWS)]
    rows = pictures.in_rows(decoded(decoder, z), STEPS, names)
    title = f"{ROWS} pairs of draws of {of}, joined along the sphere"
    pictures.digits(path, title, rows, [f"{share:.1f}" for share in shares], "share of the way")


def along_sphere(first, second, share):
    """Spherical interpolation (Shoemake 1985) between two vectors: `first` at 0, `second` at 1.

    A straight line would pass too near the origin, where the prior of a high dimension has
    hardly any mass (White, "Sampling Generative Networks", 2016).
    """
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    angle = np.arccos(np.clip(first @ second / max(lengths, 1e-30), -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * first + share * second
    sines = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    return sines[0] * first + sines[1] * second


def traverse(path, decoder, start, posterior, of):
    """Draws one row for each of the most active dimensions, moved over its range.

    Args:
        start: z, (latent_dim,), around which the walk goes.
        posterior: of `run.json`.
        of: what the draw is, for the title.
    """
    mean, std, kld = (np.array(posterior[name]) for name in ("mu_mean", "mu_std", "KLD"))
    units = np.argsort(-kld, kind="stable")[:ROWS]
    moves = np.linspace(-DEVIATIONS, DEVIATIONS, STEPS)
    z = np.tile(start, (len(units), STEPS, 1))
    for row, unit in enumerate(units):
        z[row, :, unit] = mean[unit] + moves * std[unit]
    names = [f"z[{unit}], {kld[unit]:.2f} nats" for unit in units]
    rows = pictures.in_rows(decoded(decoder, z.reshape(-1, len(start))), STEPS, names)
    title = f"The {len(units)} dimensions of largest mean KL, around the first draw of {of}"
    label = "standard deviations of mu over the training images, from its mean"
    pictures.digits(path, title, rows, [f"{move:+.1f}" for move in moves], label)


def manifold(path, decoder):
    """Draws digits over all of a two-dimensional z (Kingma and Welling 2014, figure 4)."""
    from scipy.special import ndtri

    quantiles = ndtri((np.arange(GRID) + 0.5) / GRID)
    z = np.stack(np.meshgrid(quantiles, quantiles[::-1]), -1).reshape(-1, 2)
    columns = [f"{quantile:+.1f}" for quantile in quantiles]
    rows = pictures.in_rows(decoded(decoder, z), GRID, [f"z[1] {n}" for n in columns[::-1]])
    title = f"{GRID}x{GRID} values of z, at equal steps of the prior's probability"
    pictures.digits(path, title, rows, columns, "z[0]")


def generate(decoder, latent_dim, num, seed, temperature=1.0):
    """Yields uint8 arrays of at most `CHUNK` digits, (n, 784), `num` in all."""
    from concurrent.futures import ThreadPoolExecutor

    import tensorflow as tf
    from keras.utils import Progbar

    import model
    from support import evaluation

    @tf.function
    def chunk(index):
        z = chunk_of_z(index, latent_dim, seed, temperature)
        return evaluation.as_digits(model.decode(decoder, z))

    # Traced here, once: the threads would each begin with that.
    chunk = chunk.get_concrete_function(tf.TensorSpec([], tf.int32))
    progress = Progbar(num, unit_name="digit") if sys.stdout.isatty() else None
    chunks, ahead = iter(range(-(-num // CHUNK))), deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = 0
        while done < num:
            for index in itertools.islice(chunks, AT_ONCE - len(ahead)):
                ahead.append(pool.submit(lambda i: chunk(tf.constant(i)).numpy(), index))
            digits = ahead.popleft().result()[: num - done]
            done += len(digits)
            if progress:
                progress.update(done)
            yield digits


def write_npz(path, chunks, num):
    """Streams digits into an uncompressed `.npz`, and returns the first `SHOWN` of them."""
    shown = None
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (num, 28, 28)}
        )
        for digits in chunks:
            shown = digits[:SHOWN] if shown is None else shown
            file.write(digits.data)
    return shown


if __name__ == "__main__":
    sys.exit(main())
