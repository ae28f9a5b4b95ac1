"""Generates digits with the decoder alone, without encoder, data or internet access.

    python eval_genresult.py                           # 100 digits
    python eval_genresult.py --digit 7                 # sevens
    python eval_genresult.py --prior standard          # z from N(0, I)
    python eval_genresult.py --num 1000000 --seed 7    # a million, in constant memory
    python eval_genresult.py --temperature 0.7         # less variety
    python eval_genresult.py --interpolate --traverse  # paths through the latent space
    python eval_genresult.py --page explorer.html      # the latent space in a browser

z is sampled from the fitted prior (a density fitted to the encoded training
images) if the weights have one, otherwise from N(0, I); --digit needs the
fitted prior. Writes two files to --output_dir: generated.png shows the first
100 digits; generated.npz holds `images`, uint8 (num, 28, 28), uncompressed,
`prior` ("fitted" or "standard") and, under the fitted prior, `labels`, uint8
(num,): the class of the mixture component that each z was sampled from.
"""

import os
import sys

# The modules beside this file are found even if PYTHONSAFEPATH is set.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# First, since it says in one line what is not installed.
import support.installation  # noqa: F401

# isort: split
import argparse
import shlex
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import analysis, cli, display, files, startup, storage
from support.datasets.labels import DIGIT_WORDS, MOST_CLASSES
from support.datasets.types import SIDE
from support.errors import UserError
from support.text import visible

if TYPE_CHECKING:
    import keras

    from support.analysis.fitted_prior import Mixture
    from support.analysis.generation import Sampler, Stream
    from support.storage.validation import Weights

# The included weights with a two-dimensional z.
LATENT2 = os.path.join(cli.ROOT, "better_weight", "latent2")
# The largest number of samples in generated.png, and how many stand in each of its rows.
SHOWN, COLUMNS = 100, 10
# Pairs of samples in interpolate.png.
PAIRS = 10


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("eval_genresult.py", __doc__)
    cli.add_seed_flag(parser)
    cli.add_load_weights_flag(parser)
    parser.add_argument(
        "--num", type=cli.integer(1), default=100, help="number of digits to generate"
    )
    parser.add_argument(
        "--prior",
        choices=("fitted", "standard"),
        help="what z is sampled from; standard: N(0, I) (default: fitted if the weights have a "
        "fitted prior, otherwise standard)",
    )
    parser.add_argument(
        "--digit",
        "--digits",
        nargs="+",
        metavar="D",
        help="generate only these digits, or classes by their names, in turn; needs the fitted "
        "prior (default: all)",
    )
    parser.add_argument(
        "--temperature",
        type=cli.number(0, 100),
        default=1.0,
        help="scales the distance of z from 0, or from the means of the fitted prior; below 1, "
        "samples have less variety",
    )
    paths = parser.add_argument_group("paths through the latent space (one picture each)")
    paths.add_argument(
        "--interpolate",
        action="store_true",
        help="spherical interpolation between the two samples of each of the first 10 pairs",
    )
    paths.add_argument(
        "--traverse",
        action="store_true",
        help="the first sample, varied in the 10 dimensions with the largest KL, one at a time",
    )
    paths.add_argument(
        "--manifold",
        action="store_true",
        help="if z has two dimensions: a grid over z, at equally spaced quantiles of N(0, 1)",
    )
    parser.add_argument(
        "--page",
        type=cli.path,
        metavar="FILE",
        help="also write an HTML file that shows the latent space in a browser (default: none)",
    )
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights -> the decoder alone -> digits, as pictures and as an array."""
    weights_path = cli.weights_path(args)
    found = read_weights(weights_path, args)
    with cli.error_context(f"{weights_path} "):
        labels = labels_of(args.digit or [], found.record.dataset.class_names)
        prior = chosen_prior(found, args.prior, labels)
    files.writable_folder(args.output_dir)
    analysis.collapse.print_notice(found.record)
    if args.page:
        with cli.error_context("--page: "):
            display.explorer.write(args.page, found)
        print(f"Wrote {visible(args.page)}: open it in a browser.")

    startup.import_tensorflow()
    decoder = storage.weights.build_decoder(found)
    sampler = analysis.generation.Sampler(
        latent_dim=found.record.architecture.latent_dim,
        seed=args.seed,
        temperature=args.temperature,
        prior=prior,
        labels=tuple(labels),
    )
    source = described(args, prior)
    about = f"seed {args.seed}, weights trained on {found.record.dataset.name}"
    with storage.locks.output_folder(args.output_dir), files.disk_errors(args.output_dir):
        first = write_digits(args.output_dir, decoder, sampler, args.num)
        title = f"{len(first)} samples from {source}, {about}"
        rows = display.plots.in_rows(first, COLUMNS)
        display.plots.draw(os.path.join(args.output_dir, "generated.png"), title, rows)
        names = draw_paths(args, found, decoder, sampler.chunk(0).numpy(), about)
    written = ", ".join(["generated.npz", "generated.png", *names])
    print(f"Wrote {written} to {visible(args.output_dir)}: {args.num:,} samples from {source}.")


def read_weights(path: str, args: argparse.Namespace) -> "Weights":
    """Reads the parts of the weights that the flags need.

    Raises:
        UserError: there are no weights, or a flag needs something that they do not have.
    """
    parts = ["decoder"]
    if args.page:
        # The page reconstructs what is drawn on it.
        parts.append("encoder")
    found = storage.weights.read(path, parts)
    latent_dim = found.record.architecture.latent_dim
    if args.manifold and latent_dim != 2:
        raise UserError(
            f"--manifold needs a two-dimensional z, but z has {latent_dim} dimensions in {path}: "
            f"add --load_weight_dir {shlex.quote(LATENT2)}, or train your own: "
            f"{cli.script_command('train.py')} --latent_dim 2 --save_weight_dir weight_2d "
            "--log_dir log_2d"
        )
    for flag, is_given in (("--traverse", args.traverse), ("--page", args.page)):
        if is_given and not found.record.finished:
            raise UserError(
                f"{flag} needs the weights of a finished run, but the run in {path} is not "
                "finished: finish it, or leave out the flag"
            )
    return found


def labels_of(classes: list[str], class_names: tuple[str, ...]) -> list[int]:
    """Returns the labels of classes.

    Args:
        classes: the values of `--digit`: numbers, or names in `class_names`.
        class_names: the names of the classes; empty: they are numbers.

    Raises:
        UserError: there is no such class.
    """
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    if not class_names or class_names == DIGIT_WORDS:
        labels |= {str(number): number for number in range(MOST_CLASSES)}
    unknown = [name for name in classes if name.casefold() not in labels]
    if unknown:
        known = cli.as_typed(class_names) if class_names else "whole numbers from 0 to 255"
        advice = cli.separation_hint(unknown[0]) or f": choose from {known:.400}"
        raise UserError(f"has no class {unknown[0]!r:.40}{advice}")
    return [labels[name.casefold()] for name in classes]


def chosen_prior(found: "Weights", name: str | None, digits: list[int]) -> "Mixture | None":
    """Returns the prior to sample z from; None: N(0, I).

    Args:
        found: the weights.
        name: the value of `--prior`.
        digits: the labels to generate; empty: all.

    Raises:
        UserError: there is no such prior, or it has no such class.
    """
    if name == "standard" and digits:
        raise UserError(
            "can generate digits by class only from its fitted prior: leave out --digit, or "
            "--prior standard"
        )
    if found.prior is None:
        if name == "fitted" or digits:
            flag = "--digit" if digits else "--prior fitted"
            raise UserError(
                f"has no fitted prior ({why_no_prior(found)}): leave out {flag}, or choose other "
                "weights"
            )
        return None
    if name == "standard":
        return None
    prior = analysis.fitted_prior.Mixture(found.prior)
    known = prior.labels.tolist()
    missing = sorted(set(digits) - set(known))
    if missing:
        raise UserError(f"was not trained on class {missing[0]}: choose from {cli.as_typed(known)}")
    return prior


def why_no_prior(found: "Weights") -> str:
    """Returns why weights have no fitted prior."""
    if not found.record.finished:
        return "its run is not finished"
    if found.record.prior is None:
        return "it was written by an older version"
    return found.record.prior.reason


def described(args: argparse.Namespace, prior: "Mixture | None") -> str:
    """Returns where z is sampled from, for titles and messages."""
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
    generation = analysis.generation
    chunks = generation.generate(decoder, sampler, count, progress_bar(count))
    first = next(chunks)
    images = itertools.chain([first], chunks)
    arrays: dict[str, Stream | NDArray] = {"images": generation.Stream((count, SIDE, SIDE), images)}
    if sampler.prior:
        labels = generation.generated_labels(sampler, count)
        arrays["labels"] = generation.Stream((count,), labels)
    arrays["prior"] = np.array("fitted" if sampler.prior else "standard")
    files.write_whole(
        os.path.join(folder, "generated.npz"),
        lambda written: generation.write_npz(written, arrays),
    )
    return first[:SHOWN]


def progress_bar(count: int) -> Callable[[int], None] | None:
    """Returns a function that shows how many digits are done; None if not on a terminal."""
    from keras.utils import Progbar

    return Progbar(count, unit_name="digit").update if sys.stdout.isatty() else None


def draw_paths(
    args: argparse.Namespace,
    found: "Weights",
    decoder: "keras.Model",
    z: NDArray[np.float32],
    about: str,
) -> list[str]:
    """Draws the paths that the flags ask for.

    Args:
        args: the flags.
        found: the weights.
        decoder: the decoder built from them.
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
    """Draws a row for each of the first pairs of samples: spherical interpolation."""
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
        column_label="fraction of the way from the first sample to the second",
    )


def draw_traversal(
    path: str,
    decoder: "keras.Model",
    paths: "analysis.generation.Traversal",
    about: str,
) -> None:
    """Draws a row for each latent dimension, varied over its range."""
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
        rows.append(display.plots.Row(f"z[{unit}], KL {kld:.2f} nats", images, mark=mark))
    display.plots.draw(
        path,
        f"The first sample, varied in the {len(rows)} dimensions with the largest KL, {about}",
        rows,
        column_names=[f"{deviation:+.1f}" for deviation in paths.deviations],
        column_label="distance from the mean of mu over training images, in standard deviations",
    )


def draw_manifold(path: str, decoder: "keras.Model") -> None:
    """Draws digits on a grid over a two-dimensional z."""
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
        f"{len(rows)} x {len(names)} values of z, at equally spaced quantiles of N(0, 1)",
        rows,
        column_names=names,
        column_label="z[0]",
    )


if __name__ == "__main__":
    sys.exit(main())
