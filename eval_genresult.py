"""Generates digits with the decoder alone, without encoder, data or internet access.

    python eval_genresult.py                           # 100 digits
    python eval_genresult.py --digit 7                 # sevens
    python eval_genresult.py --prior standard          # z from N(0, I)
    python eval_genresult.py --num 1000000 --seed 7    # a million, in constant memory
    python eval_genresult.py --png                     # also as separate PNG files
    python eval_genresult.py --temperature 0.7         # less variety
    python eval_genresult.py --interpolate --traverse  # paths through the latent space
    python eval_genresult.py --interpolate --gif       # the same as a looping GIF
    python eval_genresult.py --page explorer.html      # the latent space in a browser

z is sampled from the fitted prior (a density fitted to the encoded training
images) if the weights have one, otherwise from N(0, I); --digit needs the
fitted prior. Writes two files to --output_dir: generated.png shows the first
100 digits; generated.npz holds `images`, uint8 (num, 28, 28), bright on dark,
uncompressed; under the fitted prior `labels`, uint8 (num,), the class of the
mixture component that each z was sampled from; `prior` ("fitted" or
"standard"), `run_id` of the weights, and `seed`.

--png also writes each image to a file of its own below --output_dir, 28x28,
bright on dark as in MNIST: png/000042_7.png is image 42 of generated.npz, with
its class under the fitted prior. It replaces the folder png of an earlier
command, and refuses to if the folder holds other files.

--page without any other flag but --load_weight_dir writes the page alone,
without TensorFlow.
"""

import os
import sys

# The modules beside this file are found even if PYTHONSAFEPATH is set.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# First, since it says in one line what is not installed.
import support.installation  # noqa: F401

# isort: split
import argparse
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import analysis, cli, display, files, startup, storage
from support.datasets.labels import DIGIT_WORDS, labels_of
from support.datasets.types import PIXELS, SIDE
from support.errors import UserError
from support.text import visible

if TYPE_CHECKING:
    from support.analysis.fitted_prior import Mixture
    from support.analysis.generation import Stream
    from support.display.png_folder import PngFolder
    from support.storage.validation import Weights

# The included weights with a two-dimensional z.
LATENT2 = os.path.join(cli.ROOT, "better_weight", "latent2")
# The largest number of samples in generated.png, and how many stand in each of its rows.
SHOWN, COLUMNS = 100, 10
# Pairs of samples in interpolate.png, and samples that interpolate.gif passes through.
PAIRS, STOPS = 10, 10
# Frames of interpolate.gif from one sample to the next, and of traverse.gif in all.
FRAMES_BETWEEN, FRAMES_THERE_AND_BACK = 10, 48
# Output of at least this many bytes is announced.
LARGE_BYTES = 10**9
GIGABYTE = 1e9
PNG_FOLDER = "png"
# What only some flags write; generated.npz and generated.png are replaced by every command.
OPTIONAL_PICTURES = (
    "interpolate.png",
    "interpolate.gif",
    "traverse.png",
    "traverse.gif",
    "manifold.png",
)


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
        "prior, and samples that it does not clearly classify as these are replaced (default: all)",
    )
    parser.add_argument(
        "--temperature",
        type=cli.number(0, 100),
        default=1.0,
        help="scales the distance of z from 0, or from the means of the fitted prior; below 1, "
        "samples have less variety",
    )
    parser.add_argument(
        "--png",
        action="store_true",
        help="also write each image to a PNG file of its own in the folder png, 28x28, bright on "
        "dark as in MNIST, with its number and its class in its name",
    )
    add_path_flags(parser)
    parser.add_argument(
        "--page",
        type=cli.path,
        metavar="FILE",
        help="also write an HTML file that shows the latent space in a browser; without any other "
        "flag but --load_weight_dir, write this file alone (default: none)",
    )
    cli.add_output_flag(parser)
    return parser


def add_path_flags(parser: cli.Parser) -> None:
    """Adds the flags of the paths through the latent space."""
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
    paths.add_argument(
        "--gif",
        action="store_true",
        help="with --interpolate or --traverse: also write a looping GIF, from each of the first "
        "10 samples to the next and back to the first, or there and back in each dimension",
    )


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights -> the decoder alone -> digits, as pictures and as an array."""
    if args.gif and not (args.interpolate or args.traverse):
        raise UserError("--gif needs --interpolate or --traverse: add one of them")
    weights_path = cli.weights_path(args)
    found = read_weights(weights_path, args)
    with cli.error_context(f"{weights_path} "):
        labels = labels_of(args.digit or [], found.record.dataset.class_names)
        prior = chosen_prior(found, args.prior, labels)
    if args.given <= {"page", "load_weight_dir"} and args.page:
        write_page(args.page, found)
        return
    require_space(args)
    files.writable_folder(args.output_dir)
    analysis.collapse.print_notice(found.record)
    if args.page:
        write_page(args.page, found)

    print("Importing TensorFlow ...", flush=True)
    startup.import_tensorflow()
    generator = Generator(found, args, prior, labels)
    with storage.locks.output_folder(args.output_dir), files.disk_errors(args.output_dir):
        names = [*generator.write_samples(), *generator.draw_paths()]
    source = described(args, found, prior)
    folder = visible(args.output_dir)
    print(f"Wrote {', '.join(names)} to {folder}: {args.num:,} samples from {source}.")
    others = outputs_of_others(args.output_dir, names, generator)
    if others:
        print(
            f"Notice: {folder} also holds {', '.join(others)} of an earlier command "
            "with other weights or other flags."
        )


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
            f"add --load_weight_dir {cli.as_argument(LATENT2)}, or train your own: "
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


def require_space(args: argparse.Namespace) -> None:
    """Says how much will be written if it is large.

    Raises:
        UserError: the disk has less space, or the folder for PNG files must not be replaced.
    """
    size = args.num * (PIXELS + 1)
    if args.png:
        size += args.num * display.png_folder.BYTES_PER_FILE
        with cli.error_context("--png: "):
            display.png_folder.require_ours(os.path.join(args.output_dir, PNG_FOLDER))
    if size < LARGE_BYTES:
        return
    free = files.free_bytes(args.output_dir)
    if free is not None and size > free:
        raise UserError(
            f"--num {args.num} takes about {size / GIGABYTE:,.1f} GB, but only "
            f"{free / GIGABYTE:,.1f} GB are free in {args.output_dir}: choose a smaller --num or "
            "another --output_dir"
        )
    print(f"Writing about {size / GIGABYTE:,.1f} GB to {visible(args.output_dir)} ...", flush=True)


def write_page(path: str, found: "Weights") -> None:
    """Writes the page of `--page`."""
    with cli.error_context("--page: "):
        display.explorer.write(path, found)
    print(f"Wrote {visible(path)}: open it in a browser.")


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


def described(args: argparse.Namespace, found: "Weights", prior: "Mixture | None") -> str:
    """Returns where z is sampled from, for titles and messages."""
    source = "the fitted prior" if prior else "N(0, I)"
    if args.digit:
        dataset = found.record.dataset
        are_digits = dataset.name in ("mnist", "digits") or dataset.class_names == DIGIT_WORDS
        source += f", {'digits' if are_digits else 'classes'} {cli.as_typed(args.digit)}"
    if args.temperature != 1:
        source += f", temperature {args.temperature:g}"
    return source


def progress_bar(count: int) -> Callable[[int], None] | None:
    """Returns a function that shows how many samples are done; None if not on a terminal."""
    from keras.utils import Progbar

    return Progbar(count, unit_name="sample").update if sys.stdout.isatty() else None


def outputs_of_others(folder: str, written: Sequence[str], generator: "Generator") -> list[str]:
    """Returns the names of earlier outputs in a folder that show other samples than this command.

    Args:
        folder: the folder.
        written: the names of what this command has written.
        generator: what it was generated with.
    """
    names = []
    for name in sorted(set(OPTIONAL_PICTURES).difference(written)):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and display.plots.source_of(path) != generator.source:
            names.append(name)
    path = os.path.join(folder, PNG_FOLDER)
    about = display.png_folder.about(path)
    if f"{PNG_FOLDER}/" not in written and about and about.get("source") != generator.source:
        names.append(f"{PNG_FOLDER}/")
    return names


class Generator:
    """Generates all that the flags ask for, from one decoder and one sampler.

    Args:
        found: the weights.
        args: the flags.
        prior: what z is sampled from; None: N(0, I).
        labels: the classes to generate in turn; empty: all.

    Attributes:
        source: identifies the samples in the files that show them: other weights, another seed or
            other flags give another source.
    """

    def __init__(
        self,
        found: "Weights",
        args: argparse.Namespace,
        prior: "Mixture | None",
        labels: Sequence[int],
    ) -> None:
        self._args, self._record = args, found.record
        self._decoder = storage.weights.build_decoder(found)
        self._sampler = analysis.generation.Sampler(
            latent_dim=found.record.architecture.latent_dim,
            seed=args.seed,
            temperature=args.temperature,
            prior=prior,
            labels=tuple(labels),
        )
        self._samples = described(args, found, prior)
        record = found.record
        data = "your own images" if record.dataset.name == "custom" else record.dataset.name
        self._about = f"seed {args.seed}, weights trained on {data}"
        self.source = (
            f"run {record.run_id}, step {record.step}, seed {args.seed}, z from {self._samples}"
        )

    def write_samples(self) -> list[str]:
        """Writes generated.npz, generated.png and the folder of PNG files; returns their names."""
        args, generation = self._args, analysis.generation
        names = ["generated.npz", "generated.png"]
        with contextlib.ExitStack() as stack:
            chunks = generation.generate(
                self._decoder, self._sampler, args.num, progress_bar(args.num)
            )
            first = next(chunks)
            images: Iterable[NDArray[np.uint8]] = itertools.chain([first], chunks)
            if args.png:
                names.append(f"{PNG_FOLDER}/")
                images = self._also_as_files(images, stack.enter_context(self._png_folder()))
            arrays = self._arrays(images)
            files.write_whole(
                os.path.join(args.output_dir, "generated.npz"),
                lambda written: generation.write_npz(written, arrays),
            )
        title = f"{min(args.num, SHOWN)} samples from {self._samples}, {self._about}"
        rows = display.plots.in_rows(first[:SHOWN], COLUMNS)
        display.plots.draw(self._path("generated.png"), title, rows, source=self.source)
        return names

    def _path(self, name: str) -> str:
        return os.path.join(self._args.output_dir, name)

    def _arrays(self, images: Iterable[NDArray[np.uint8]]) -> "dict[str, Stream | NDArray]":
        """Returns the content of generated.npz."""
        count, stream = self._args.num, analysis.generation.Stream
        arrays: dict[str, Stream | NDArray] = {"images": stream((count, SIDE, SIDE), images)}
        if self._sampler.prior:
            labels = analysis.generation.generated_labels(self._sampler, count)
            arrays["labels"] = stream((count,), labels)
        return arrays | {
            "prior": np.array("fitted" if self._sampler.prior else "standard"),
            "run_id": np.array(self._record.run_id),
            "seed": np.array(self._args.seed),
        }

    def _png_folder(self) -> "contextlib.AbstractContextManager[PngFolder]":
        """Returns what creates the folder of PNG files."""
        prior, names = self._sampler.prior, []
        # The only class may stand for images without labels.
        if prior and len(prior.labels) > 1:
            class_names = self._record.dataset.class_names
            names = display.png_folder.names_for_files(class_names, int(prior.labels.max()) + 1)
        about = {
            "written_by": "eval_genresult.py --png",
            "source": self.source,
            "run_id": self._record.run_id,
            "seed": self._args.seed,
            "images": self._args.num,
        }
        path = self._path(PNG_FOLDER)
        return display.png_folder.replaced(path, self._args.num, names, about)

    def _also_as_files(
        self, images: Iterable[NDArray[np.uint8]], folder: "PngFolder"
    ) -> Iterator[NDArray[np.uint8]]:
        """Yields images unchanged, and writes them to separate files on the way."""
        labels: Iterator[NDArray[np.uint8] | None] = itertools.repeat(None)
        if self._sampler.prior:
            labels = analysis.generation.generated_labels(self._sampler, self._args.num)
        for chunk in images:
            folder.write(chunk, next(labels))
            yield chunk

    def draw_paths(self) -> list[str]:
        """Draws the paths that the flags ask for; returns the names of the pictures."""
        args, names = self._args, []
        z = self._sampler.chunk(0).numpy()
        if args.interpolate:
            names.append("interpolate.png")
            self._draw_interpolation(self._path(names[-1]), z)
            if args.gif:
                names.append("interpolate.gif")
                self._animate_interpolation(self._path(names[-1]), z)
        if args.traverse:
            names.append("traverse.png")
            self._draw_traversal(self._path(names[-1]), z[0])
            if args.gif:
                names.append("traverse.gif")
                self._animate_traversal(self._path(names[-1]), z[0])
        if args.manifold:
            names.append("manifold.png")
            self._draw_manifold(self._path(names[-1]))
        return names

    def _decode(self, z: NDArray[np.floating]) -> NDArray[np.uint8]:
        return analysis.generation.decode(self._decoder, z)

    def _draw_interpolation(self, path: str, z: NDArray[np.float32]) -> None:
        """Draws a row for each of the first pairs of samples: spherical interpolation."""
        digits = self._decode(analysis.generation.interpolation(z[: 2 * PAIRS]))
        rows = [
            display.plots.Row(f"samples {2 * pair + 1} and {2 * pair + 2}", images)
            for pair, images in enumerate(digits)
        ]
        shares = np.linspace(0, 1, analysis.generation.STEPS)
        display.plots.draw(
            path,
            f"Spherical interpolation between {PAIRS} pairs of samples, {self._about}",
            rows,
            column_names=[f"{share:.1f}" for share in shares],
            column_label="fraction of the way from the first sample to the second",
            source=self.source,
        )

    def _animate_interpolation(self, path: str, z: NDArray[np.float32]) -> None:
        """Writes a GIF in which each of the first samples becomes the next, the last the first."""
        images = self._decode(analysis.generation.closed_path(z[:STOPS], FRAMES_BETWEEN))
        # Each image is one sample ahead of the image to its left.
        starts = np.arange(STOPS) * FRAMES_BETWEEN
        shown = (np.arange(len(images))[:, None] + starts) % len(images)
        display.animation.write(path, images[shown], comment=self.source)

    def _draw_traversal(self, path: str, start: NDArray[np.float32]) -> None:
        """Draws a row for each latent dimension, varied over its range."""
        assert self._record.posterior is not None, "read_weights has checked that"
        paths = analysis.generation.traversal(start, self._record.posterior)
        first, step = paths.deviations[0], paths.deviations[1] - paths.deviations[0]
        last_column = len(paths.deviations) - 1
        rows = []
        for unit, kld, position, images in zip(
            paths.units, paths.kld, paths.start, self._decode(paths.z), strict=True
        ):
            column = float(np.clip((position - first) / step, 0, last_column))
            is_outside = abs(position) > paths.deviations[-1]
            text = f"start, at {position:+.1f}" if is_outside else "start"
            mark = display.plots.Mark(column, text)
            rows.append(display.plots.Row(f"z[{unit}], KL {kld:.2f} nats", images, mark=mark))
        display.plots.draw(
            path,
            f"The first sample, varied in the {len(rows)} dimensions with the largest KL, "
            f"{self._about}",
            rows,
            column_names=[f"{deviation:+.1f}" for deviation in paths.deviations],
            column_label="distance from the mean of mu over training images, in standard "
            "deviations",
            source=self.source,
        )

    def _animate_traversal(self, path: str, start: NDArray[np.float32]) -> None:
        """Writes a GIF of the first sample, varied in each latent dimension, there and back."""
        assert self._record.posterior is not None, "read_weights has checked that"
        generation = analysis.generation
        paths, deviations = generation.swinging(
            start, self._record.posterior, FRAMES_THERE_AND_BACK
        )
        units = generation.traversal(start, self._record.posterior).units
        farthest = generation.DEVIATIONS
        slider = display.animation.Slider(
            positions=((deviations + farthest) / (2 * farthest)).tolist(),
            low=f"-{farthest}",
            high=f"+{farthest} standard deviations",
        )
        display.animation.write(
            path,
            self._decode(paths).swapaxes(0, 1),
            captions=[f"z[{unit}]" for unit in units],
            slider=slider,
            comment=self.source,
        )

    def _draw_manifold(self, path: str) -> None:
        """Draws digits on a grid over a two-dimensional z."""
        z, values = analysis.generation.manifold()
        names = [f"{value:+.1f}" for value in values]
        rows = [
            display.plots.Row(f"z[1] = {name}", images)
            for name, images in zip(reversed(names), self._decode(z), strict=True)
        ]
        display.plots.draw(
            path,
            f"{len(rows)} x {len(names)} values of z, at equally spaced quantiles of N(0, 1)",
            rows,
            column_names=names,
            column_label="z[0]",
            source=self.source,
        )


if __name__ == "__main__":
    cli.end_process(main())
