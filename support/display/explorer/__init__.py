"""The explorer: one HTML file with a decoder, an encoder and a prior, to try out in a browser.

    explorer.write("explorer.html", storage.weights.read("better_weight"))

The page works offline and without a server. Its sources are page.html, page.css, pictures.js and
page.js in this folder; it contains the weights as half-precision floats in base64. Nothing here
needs TensorFlow.
"""

import base64
import json
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from support import files, records
from support.analysis import collapse, fitted_prior
from support.datasets.types import PIXELS
from support.errors import UserError

if TYPE_CHECKING:
    from support.storage.validation import Weights

SOURCES = pathlib.Path(__file__).parent
PAGE_START = b"<!doctype html>"
LARGEST_HALF = 65504
MOST_SLIDERS = 20
# The map of a two-dimensional z reaches this far from 0.
PLANE_EDGE = 3.0
# The names of data sets, for use in a sentence.
DATASET_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "digits": "scikit-learn's digits",
    "custom": "custom images",
}


def write(path: str, found: "Weights") -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the path of the HTML file.
        found: the weights of a finished run, with encoder and decoder.

    Raises:
        UserError: the weights do not fit into half-precision floats, the file cannot be written, or
            it exists and is not a web page.
    """
    _require_page_or_nothing(path)
    # Names of classes come from the user's files, and must not end the script element.
    content = json.dumps(model_of(found)).replace("<", "\\u003c")
    page = source_of("page.html")
    for name in ("page.css", "pictures.js", "page.js"):
        page = page.replace(f"/* {name} */", source_of(name))
    with files.disk_errors(path):
        files.write_text(path, page.replace('"the model"', content))


def source_of(name: str) -> str:
    """Returns a source of the page, without the imports and exports of its two JavaScript modules.

    A page without a server cannot import modules, so that it holds both in one script.
    """
    source = SOURCES.joinpath(name).read_text(encoding="utf-8")
    if name.endswith(".js"):
        source = re.sub(r"^(import [^;]*;\n|export )", "", source, flags=re.MULTILINE)
    return source


def _require_page_or_nothing(path: str) -> None:
    """Raises a `UserError` if there is a file that the page would destroy, such as weights."""
    if not os.path.isfile(path):
        return
    with files.disk_errors(path), open(path, "rb") as file:
        start = file.read(len(PAGE_START))
    if start and start.lower() != PAGE_START:
        raise UserError(f"{path} exists and is not a web page: choose another name")


def model_of(found: "Weights") -> dict[str, Any]:
    """Returns what page.js reads, as a JSON object.

    Its keys: `about`, two or three sentences; `class_names`, empty for digits; `activation`;
    `residual`, as in `model.VAE`; the bound of `log_var`; `latent_dim`; `active`, how many latent
    dimensions are active; `encoder` and `decoder`, the sizes of their layers; `weights` of both;
    `posterior`, moments over the training images; `sliders`, their number; `prior`, the fitted
    prior or null; `plane`, the map or null.

    Raises:
        UserError: the weights do not fit into half-precision floats.
    """
    record = found.record
    assert record.posterior is not None, "only a finished run has a page"
    assert found.encoder is not None, "the page encodes"
    assert found.decoder is not None, "the page decodes"
    network = record.architecture
    active = collapse.active_units(record.posterior)
    return {
        "about": about(record, active),
        "class_names": list(record.dataset.class_names),
        "activation": network.activation,
        "residual": network.residual,
        "largest_log_var": records.LARGEST_LOG_VAR,
        "latent_dim": network.latent_dim,
        "active": active,
        "encoder": network.encoder_sizes(PIXELS),
        "decoder": network.decoder_sizes(PIXELS),
        "weights": halves(*found.encoder, *found.decoder),
        "posterior": {
            "mu_std": np.round(record.posterior.mu_std, 5).tolist(),
            "KLD": np.round(record.posterior.KLD, 5).tolist(),
        },
        "sliders": min(max(active, 2), MOST_SLIDERS, network.latent_dim),
        "prior": prior_of(found.prior),
        "plane": plane(found.prior, network.latent_dim),
    }


def about(record: records.RunRecord, active: int) -> str:
    """Returns two or three sentences on where the weights come from."""
    name = DATASET_NAMES.get(record.dataset.name, record.dataset.name)
    epochs = "1 epoch" if record.epochs_done == 1 else f"{record.epochs_done:,} epochs"
    start = ", on top of an earlier run" if record.warm_start else ""
    uses = f"It uses {active} of the {record.architecture.latent_dim} dimensions of z."
    if not active:
        uses += " So all its images look alike, whatever z is (posterior collapse)."
    return f"This model was trained for {epochs} on {name}{start}. {uses}"


def prior_of(prior: fitted_prior.PriorArrays | None) -> dict[str, Any] | None:
    """Returns the fitted prior for page.js; None if there is none."""
    if prior is None:
        return None
    return {
        "active": prior.active.tolist(),
        "labels": prior.labels.tolist(),
        "weights": prior.weights.tolist(),
        "means": halves(prior.means),
        "factors": halves(np.linalg.cholesky(prior.covariances)),
    }


def halves(*arrays: NDArray[np.floating]) -> str:
    """Returns arrays as half-precision floats, one after the other, in base64.

    Raises:
        UserError: a number is too large for a half-precision float.
    """
    flat = np.concatenate([np.ravel(array) for array in arrays])
    largest = np.abs(flat).max()
    if largest > LARGEST_HALF:
        raise UserError(
            f"expected weights of at most {LARGEST_HALF:,}, which the page can store in half "
            f"precision, got {largest:,.0f}: choose other weights"
        )
    return base64.b64encode(flat.astype("<f2").tobytes()).decode()


def plane(prior: fitted_prior.PriorArrays | None, latent_dim: int) -> dict[str, Any] | None:
    """Returns the map: a plane in z, the components of the prior on it, its edges, and a text.

    If z has two dimensions, it is the plane. Otherwise the plane contains the mean of the fitted
    prior and the two directions in which the means of its components vary most; there is no map
    without a fitted prior of at least two dimensions.
    """
    if latent_dim == 2:
        return _whole_plane(prior)
    if prior is None or len(prior.active) < 2:
        return None
    origin = prior.weights @ prior.means
    centred = prior.means - origin
    axes = np.linalg.eigh((prior.weights[:, None] * centred).T @ centred)[1][:, ::-1].T[:2]
    points = centred @ axes.T
    edge = 1.1 * np.abs(points).max() + 0.1
    text = (
        "The components of the fitted prior, labelled by class, in the plane in which their means "
        "vary most. Click or drag to choose a point; the ring marks the current image."
    )
    return {
        "units": prior.active.tolist(),
        "low": [-edge, -edge],
        "high": [edge, edge],
        "text": text,
        "origin": np.round(origin, 4).tolist(),
        "axes": np.round(axes, 4).tolist(),
        "points": np.round(points, 4).tolist(),
    }


def _whole_plane(prior: fitted_prior.PriorArrays | None) -> dict[str, Any]:
    """Returns the map of a two-dimensional z."""
    points = np.zeros((0, 2))
    if prior is not None and len(prior.active) == 2:
        points = prior.means
    text = (
        f"The latent space from -{PLANE_EDGE:g} to {PLANE_EDGE:g} in each dimension. Click or drag "
        "to choose a point; the ring marks the current image."
    )
    return {
        "units": [0, 1],
        "low": [-PLANE_EDGE, -PLANE_EDGE],
        "high": [PLANE_EDGE, PLANE_EDGE],
        "text": text,
        "origin": [0.0, 0.0],
        "axes": [[1.0, 0.0], [0.0, 1.0]],
        "points": np.round(points, 4).tolist(),
    }
