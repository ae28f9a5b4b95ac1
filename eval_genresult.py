"""Generates digits with the decoder alone: no encoder, no data, no network.

    python eval_genresult.py                           # 100 digits
    python eval_genresult.py --digit 7                 # sevens
    python eval_genresult.py --prior standard          # z from N(0, I)
    python eval_genresult.py --num 1000000 --seed 7    # in constant memory
    python eval_genresult.py --temperature 0.7         # less variety
    python eval_genresult.py --interpolate --traverse  # paths through the latent space
    python eval_genresult.py --page explorer.html      # all of it in a browser

z is sampled from the fitted prior, a density fitted to the encoded training
images, where the weights have one, and from N(0, I) otherwise; --digit needs
the fitted prior. Writes generated.png (the first 100 digits) and generated.npz
to --output_dir: `images`, uint8 (num, 28, 28), uncompressed; `prior`, fitted or
standard; with --digit also `labels`, uint8 (num,).
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import analysis, cli, display, files, startup, storage
from support.errors import UserError

if TYPE_CHECKING:
    import keras

    from support.analysis.fitted_prior import Mixture
    from support.analysis.generation import Sampler
    from support.storage.validation import Weights

COLUMNS = 10
# Pairs of samples in interpolate.png.
PAIRS = 10


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("eval_genresult.py", __doc__)
    cli.add_seed_flag(parser)
    cli.add_load_weights_flag(parser)
    parser.add_argument("--num", type=cli.integer(1), default=100, help="how many digits")
    parser.add_argument(
        "--prior",
        choices=("fitted", "standard"),
        help="fitted: where the encoder puts images; standard: N(0, I) (default: fitted if the "
        "weights have one)",
    )
    parser.add_argument(
        "--digit",
        "--digits",
        type=cli.integer(0, 255),
        nargs="+",
        metavar="D",
        help="generate these digits, in turn; needs the fitted prior (default: all)",
    )
    parser.add_argument(
        "--temperature",
        type=cli.number(0, 100),
        default=1.0,
        help="scales the noise: of N(0, I), or about the means of the fitted prior",
    )
    paths = parser.add_argument_group("paths through the latent space, each one more picture")
    paths.add_argument(
        "--interpolate",
        action="store_true",
        help="spherical interpolation between the seed's first 10 pairs of samples",
    )
    paths.add_argument(
        "--traverse",
        action="store_true",
        help="the 10 dimensions of largest KL, one at a time, from the seed's first sample",
    )
    paths.add_argument(
        "--manifold",
        action="store_true",
        help="all of a two-dimensional z, at equal steps of the probability under N(0, I)",
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        help="write one HTML file that explores these weights in a browser (default: none)",
    )
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights -> the decoder alone -> digits, as pictures and as an array."""
    weights_path = cli.weights_path(args)
    found = read_weights(weights_path, args)
    with cli.error_context(f"{weights_path} "):
        prior = chosen_prior(found, args.prior, args.digit or [])
    files.writable_folder(args.output_dir)
    if args.page:
        with cli.error_context("--page: "):
            display.explorer.write(args.page, found)
        print(f"Wrote {args.page}: open it in a browser.")

    startup.import_tensorflow()
    decoder = storage.weights.build_decoder(found)
    sampler = analysis.generation.Sampler(
        latent_dim=found.record.architecture.latent_dim,
        seed=args.seed,
        temperature=args.temperature,
        prior=prior,
        labels=tuple(args.digit or ()),
    )
    source = described(args, prior)
    about = f"seed {args.seed}, trained on {found.record.dataset.name}"
    with files.disk_errors(args.output_dir):
        first = write_digits(args.output_dir, decoder, sampler, args.num)
        title = f"{len(first)} samples of {source}, {about}"
        rows = display.plots.in_rows(first, COLUMNS)
        display.plots.draw(os.path.join(args.output_dir, "generated.png"), title, rows)
        names = draw_paths(args, found, decoder, sampler.chunk(0).numpy(), about)
    print(
        f"Wrote {args.num:,} samples of {source} to generated.npz, and "
        f"{', '.join(['generated.png', *names])}, in {args.output_dir}."
    )


def read_weights(path: str, args: argparse.Namespace) -> "Weights":
    """Reads what the flags need of the weights.

    Raises:
        UserError: there are none, or a flag asks for what these weights cannot give.
    """
    parts = ["decoder"]
    if args.page:
        # The page reconstructs what is drawn on it.
        parts.append("encoder")
    found = storage.weights.read(path, parts)
    latent_dim = found.record.architecture.latent_dim
    if args.manifold and latent_dim != 2:
        raise UserError(
            f"--manifold shows a two-dimensional z, and that of {path} has {latent_dim} "
            "dimensions: drop the flag, or train with --latent_dim 2"
        )
    for flag, is_given in (("--traverse", args.traverse), ("--page", args.page)):
        if is_given and not found.record.finished:
            raise UserError(
                f"{flag} needs the weights of a finished run, and that of {path} is in progress: "
                "finish it, or drop the flag"
            )
    return found


def chosen_prior(found: "Weights", name: str | None, digits: list[int]) -> "Mixture | None":
    """Returns the prior to sample z from; None: N(0, I).

    Args:
        found: the weights.
        name: as `--prior` gives it.
        digits: as `--digit` gives them.

    Raises:
        UserError: there is no such prior, or no such class in it.
    """
    if name == "standard" and digits:
        raise UserError("generates digits by class from its fitted prior only: drop one flag")
    if found.prior is None:
        if name == "fitted" or digits:
            flag = "--digit" if digits else "--prior fitted"
            raise UserError(
                f"has no fitted prior ({why_no_prior(found)}): drop {flag}, or load other weights"
            )
        return None
    if name == "standard":
        return None
    prior = analysis.fitted_prior.Mixture(found.prior)
    known = prior.labels.tolist()
    missing = sorted(set(digits) - set(known))
    if missing:
        raise UserError(
            f"was not trained on the class {missing[0]}: --digit takes {cli.as_typed(known)}"
        )
    return prior


def why_no_prior(found: "Weights") -> str:
    """Returns why weights have no fitted prior."""
    if not found.record.finished:
        return "its run is in progress"
    if found.record.prior is None:
        return "an older version wrote it"
    return found.record.prior.reason


def described(args: argparse.Namespace, prior: "Mixture | None") -> str:
    """Returns what is sampled from, for titles and messages."""
    source = "the fitted prior" if prior else "N(0, I)"
    if args.digit:
        source += f", digits {cli.as_typed(args.digit)}"
    if args.temperature != 1:
        source += f", temperature {args.temperature:g}"
    return source


def write_digits(
    folder: str, decoder: "keras.Model", sampler: "Sampler", count: int
) -> NDArray[np.uint8]:
    """Writes generated.npz and returns its first images, uint8 (at most 100, 784)."""
    extra = {"prior": np.array("fitted" if sampler.prior else "standard")}
    if sampler.labels:
        extra["labels"] = np.resize(np.array(sampler.labels, np.uint8), count)
    chunks = analysis.generation.generate(decoder, sampler, count, progress_bar(count))
    return files.write_whole(
        os.path.join(folder, "generated.npz"),
        lambda written: analysis.generation.write_npz(written, chunks, count, extra),
    )


def progress_bar(count: int) -> Callable[[int], None] | None:
    """Returns a function that shows how many digits are done; None unless on a terminal."""
    from keras.utils import Progbar

    return Progbar(count, unit_name="digit").update if sys.stdout.isatty() else None


def draw_paths(
    args: argparse.Namespace,
    found: "Weights",
    decoder: "keras.Model",
    z: NDArray[np.float32],
    about: str,
) -> list[str]:
    """Draws the paths that were asked for.

    Args:
        args: the flags.
        found: the weights.
        decoder: built of them.
        z: the first samples, (n, latent_dim).
        about: the seed and the data set, for titles.

    Returns:
        The names of the pictures.
    """
    names = []
    if args.interpolate:
        names.append("interpolate.png")
        draw_interpolation(os.path.join(args.output_dir, names[-1]), decoder, z, about)
    if args.traverse:
        names.append("traverse.png")
        assert found.record.posterior is not None, "read_weights has checked that"
        paths = analysis.generation.traversal(z[0], found.record.posterior)
        draw_traversal(os.path.join(args.output_dir, names[-1]), decoder, paths, about)
    if args.manifold:
        names.append("manifold.png")
        draw_manifold(os.path.join(args.output_dir, names[-1]), decoder)
    return names


def draw_interpolation(
    path: str, decoder: "keras.Model", z: NDArray[np.float32], about: str
) -> None:
    """Draws a row from each of the first samples to the next one, by spherical interpolation."""
    digits = analysis.generation.decode(decoder, analysis.generation.interpolation(z[: 2 * PAIRS]))
    rows = [
        display.plots.Row(f"samples {2 * pair + 1} and {2 * pair + 2}", images)
        for pair, images in enumerate(digits)
    ]
    shares = np.linspace(0, 1, analysis.generation.STEPS)
    display.plots.draw(
        path,
        f"Spherical interpolation between {PAIRS} pairs of samples, {about}",
        rows,
        column_names=[f"{share:.1f}" for share in shares],
        column_label="share of the way from the first sample to the second",
    )


def draw_traversal(
    path: str,
    decoder: "keras.Model",
    paths: "analysis.generation.Traversal",
    about: str,
) -> None:
    """Draws a row for each latent dimension, moved over its range."""
    first, step = paths.deviations[0], paths.deviations[1] - paths.deviations[0]
    last_column = len(paths.deviations) - 1
    rows = []
    for unit, kld, start, images in zip(
        paths.units,
        paths.kld,
        paths.start,
        analysis.generation.decode(decoder, paths.z),
        strict=True,
    ):
        column = float(np.clip((start - first) / step, 0, last_column))
        is_outside = abs(start) > paths.deviations[-1]
        text = f"start, at {start:+.1f}" if is_outside else "start"
        mark = display.plots.Mark(column, text)
        rows.append(display.plots.Row(f"z[{unit}], KL {kld:.2f}", images, mark=mark))
    display.plots.draw(
        path,
        f"The {len(rows)} dimensions of largest KL (nats), from the first sample of {about}",
        rows,
        column_names=[f"{deviation:+.1f}" for deviation in paths.deviations],
        column_label="standard deviations of mu over the training images, from its mean",
    )


def draw_manifold(path: str, decoder: "keras.Model") -> None:
    """Draws digits over all of a two-dimensional z."""
    z, values = analysis.generation.manifold()
    names = [f"{value:+.1f}" for value in values]
    rows = [
        display.plots.Row(f"z[1] = {name}", images)
        for name, images in zip(
            reversed(names), analysis.generation.decode(decoder, z), strict=True
        )
    ]
    display.plots.draw(
        path,
        f"{len(rows)} x {len(names)} values of z, at equal steps of the probability under N(0, I)",
        rows,
        column_names=names,
        column_label="z[0]",
    )


if __name__ == "__main__":
    sys.exit(main())
