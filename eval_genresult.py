"""Generates digits with the decoder alone: no encoder, no data, no network.

    python eval_genresult.py                           # 100 digits
    python eval_genresult.py --digit 7                 # sevens
    python eval_genresult.py --prior standard          # z of N(0, I)
    python eval_genresult.py --num 1000000 --seed 7    # in constant memory
    python eval_genresult.py --temperature 0.7         # more alike
    python eval_genresult.py --interpolate --traverse  # walks through z
    python eval_genresult.py --page explorer.html      # all of it in a browser

z is drawn from the fitted prior (support/prior.py) where the weights have one,
and from N(0, I) otherwise; --digit needs the former. Writes generated.png (the
first 100 digits) and generated.npz to --output_dir: `images`, uint8 (num, 28,
28), uncompressed; `prior`, a word; with --digit also `labels`, uint8 (num,).
"""

import itertools
import os
import sys
import zipfile
from collections import deque
from functools import partial

import numpy as np

from support import UserError, cli, explorer, files, pictures, prior, weights

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
    which = "fitted: where images lie; standard: N(0, I) (default: fitted where there is one)"
    parser.add_argument("--prior", choices=("fitted", "standard"), help=which)
    asked = "draw these digits, in turn; needs the fitted prior (default: all)"
    parser.add_argument("--digit", type=cli.integer(0, 255), nargs="+", metavar="D", help=asked)
    heat = "scales the noise in z: of N(0, I), or about the means of the fitted prior"
    parser.add_argument("--temperature", type=cli.number(0, 100), default=1.0, help=heat)
    add = parser.add_argument_group("walks in the latent space, each a picture more").add_argument
    joined = f"from one draw to another along the sphere, the first {ROWS} pairs of the seed"
    add("--interpolate", action="store_true", help=joined)
    moved = f"the {ROWS} most active dimensions of z, one by one, around the seed's first draw"
    add("--traverse", action="store_true", help=moved)
    spread = "all of a two-dimensional z at equal steps of the probability under N(0, I)"
    add("--manifold", action="store_true", help=spread)
    page = "write a page that explores these weights in a browser: one file (default: none)"
    parser.add_argument("--page", metavar="FILE", help=page)
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Weights folder -> the decoder alone -> digits as pictures and as an array."""
    folder = cli.weights_folder(args)
    parts = ("encoder", "decoder") if args.page else ("decoder",)
    run, arrays = weights.read(folder, parts)
    latent_dim, posterior = run["architecture"]["latent_dim"], run["posterior"]
    if args.manifold and latent_dim != 2:
        raise UserError(f"--manifold shows a z of two dimensions, not {latent_dim} as in {folder}")
    if (args.traverse or args.page) and posterior is None:
        flag = "--traverse" if args.traverse else "--page"
        raise UserError(f"{flag} needs a finished run, and that of {folder} is in progress")
    with cli.explained(f"{folder} "):
        fitted = chosen_prior(args.prior, args.digit, run, arrays)
    files.writable_folder(args.output_dir)
    if args.page:
        with cli.explained("--page: "):
            explorer.write(args.page, run, arrays)
        print(f"Wrote {args.page}: open it in a browser.")
    decoder = weights.build(run, {"decoder": arrays["decoder"]})
    draw = partial(chunk_of_z, latent_dim, args.seed, args.temperature, fitted, args.digit)
    of = f"seed {args.seed}, {run['dataset']['name']}"
    names = ["generated.png"]
    about = {"prior": np.array("fitted" if fitted else "standard")}
    if args.digit:
        about["labels"] = np.resize(np.array(args.digit, np.uint8), args.num)

    def path(name):
        return os.path.join(args.output_dir, name)

    with files.disk_errors(args.output_dir):
        chunks = generate(decoder, draw, args.num)
        shown = files.write_whole(
            path("generated.npz"), lambda name: write_npz(name, chunks, args.num, about)
        )
        source = "the fitted prior" if fitted else "z ~ N(0, I)"
        if args.digit:
            source += f" of {cli.spelled(args.digit)}"
        if args.temperature != 1:
            source += f" at temperature {args.temperature:g}"
        title = f"{len(shown)} draws of {source}, {of}"
        pictures.digits(path("generated.png"), title, pictures.in_rows(shown, 10))
        drawn = draw(0).numpy()
        if args.interpolate:
            names.append("interpolate.png")
            interpolate(path(names[-1]), decoder, drawn[: 2 * ROWS], of)
        if args.traverse:
            names.append("traverse.png")
            traverse(path(names[-1]), decoder, drawn[0], posterior, of)
        if args.manifold:
            names.append("manifold.png")
            manifold(path(names[-1]), decoder)
    what = f"{args.num:,} draws of {source} to generated.npz, and {', '.join(names)}"
    print(f"Wrote {what}, in {args.output_dir}.")


def chosen_prior(name, digits, run, arrays):
    """Returns the `prior.Mixture` to draw from; None: N(0, I).

    Args:
        name, digits: as `--prior` and `--digit` give them.
        run, arrays: as `weights.read` returns them.

    Raises:
        UserError: there is no such prior, or no such digit in it.
    """
    if "prior" not in arrays:
        if name == "fitted" or digits:
            told = run.get("prior", {"why": "made by an older version"})
            why = told["why"] if run["posterior"] else "its run is in progress"
            flag = "--digit" if digits else "--prior fitted"
            raise UserError(f"has no fitted prior ({why}): drop {flag}, or load other weights")
        return None
    if name == "standard":
        if digits:
            raise UserError("draws digits by class from its fitted prior alone: drop one flag")
        return None
    fitted = prior.Mixture(arrays["prior"])
    missing = sorted(set(digits or ()) - set(fitted.digits.tolist()))
    if missing:
        known = cli.spelled(fitted.digits.tolist())
        raise UserError(f"has seen no digit {missing[0]}: --digit takes {known}")
    return fitted


def chunk_of_z(latent_dim, seed, temperature, fitted, digits, index):
    """Returns z of one chunk of the seed's digits, a float32 tensor (CHUNK, latent_dim)."""
    import tensorflow as tf

    from support import window

    noise = window.normal([CHUNK, latent_dim], seed, window.GENERATION_STREAM, index)
    noise *= temperature
    if fitted is None:
        return noise
    uniform = window.uniform([CHUNK], seed, window.PRIOR_STREAM, index)
    if digits:
        digits = tf.gather(digits, (index * CHUNK + tf.range(CHUNK)) % len(digits))
    return fitted.draw(noise, uniform, digits)


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
    digits, rows = decoded(decoder, z.reshape(-1, len(start))).reshape(len(units), STEPS, -1), []
    for unit, images in zip(units, digits, strict=True):
        texts = [""] * STEPS
        texts[np.abs(mean[unit] + moves * std[unit] - start[unit]).argmin()] = "start"
        rows.append((f"z[{unit}], {kld[unit]:.2f} nats", images, texts))
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
    title = f"{GRID}x{GRID} values of z, at equal steps of N(0, I)'s probability"
    pictures.digits(path, title, rows, columns, "z[0]")


def generate(decoder, draw, num):
    """Yields uint8 arrays of at most `CHUNK` digits, (n, 784), `num` in all.

    Args:
        draw: function of a chunk's number that returns its z, a tensor (CHUNK, latent_dim).
    """
    from concurrent.futures import ThreadPoolExecutor

    import tensorflow as tf
    from keras.utils import Progbar

    import model
    from support import evaluation

    @tf.function(autograph=False)
    def chunk(index):
        return evaluation.as_digits(model.decode(decoder, draw(index)))

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


def write_npz(path, chunks, num, about):
    """Streams digits into an uncompressed `.npz`, and returns the first `SHOWN` of them.

    Args:
        about: dict of small arrays to add.
    """
    shown = None
    header = {"descr": "|u1", "fortran_order": False, "shape": (num, 28, 28)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for digits in chunks:
                shown = digits[:SHOWN] if shown is None else shown
                file.write(digits.data)
        for name, array in about.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return shown


if __name__ == "__main__":
    sys.exit(main())
