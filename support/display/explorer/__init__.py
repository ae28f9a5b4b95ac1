"""The explorer: one HTML file with a decoder, an encoder and a prior, to play with in a browser.

    explorer.write("explorer.html", run, arrays)      # as weights.read returns them

The page needs no network and no server. Its sources are page.html, page.css and page.js in this
folder; weights go into it as half floats in base64. Nothing here needs TensorFlow.
"""

import base64
import json
import pathlib

import numpy as np

from data import PIXELS
from support import UserError, files
from support.prior import ACTIVE_VARIANCE

HERE = pathlib.Path(__file__).parent
LARGEST_HALF = 65504
SLIDERS = 20


def write(path, run, arrays):
    """Writes the page, whole or not at all.

    Args:
        path: of the HTML file.
        run, arrays: as `weights.read` returns them, of a finished run, encoder and decoder.

    Raises:
        UserError: the weights do not fit into half floats, or the file cannot be written.
    """
    architecture, posterior = run["architecture"], run["posterior"]
    latent_dim, hidden = architecture["latent_dim"], architecture["hidden_units"]
    carried = int(np.sum(np.array(posterior["mu_std"]) ** 2 > ACTIVE_VARIANCE))
    trained = f"{run['epochs_done']} epochs of {run['dataset']['name']}"
    earlier = " on top of an earlier run" * run["training"]["warm_start"]
    model = {
        "about": f"Its weights come from {trained}{earlier}, "
        f"and use {carried} of the {latent_dim} dimensions of z.",
        "activation": architecture["activation"],
        "latent_dim": latent_dim,
        "encoder": [PIXELS, *hidden, 2 * latent_dim],
        "decoder": [latent_dim, *reversed(hidden), PIXELS],
        "weights": halves(*arrays["encoder"], *arrays["decoder"]),
        "posterior": {name: np.round(posterior[name], 5).tolist() for name in ("mu_std", "KLD")},
        "shown": min(max(carried, 2), SLIDERS, latent_dim),
        "prior": None,
        "plane": None,
    }
    prior = arrays.get("prior")
    if prior:
        plain = {name: prior[name].tolist() for name in ("active", "labels", "weights")}
        factors = np.linalg.cholesky(prior["covariances"])
        model["prior"] = plain | {"means": halves(prior["means"]), "factors": halves(factors)}
    if prior or latent_dim == 2:
        model["plane"] = plane(prior, latent_dim)
    page = HERE.joinpath("page.html").read_text(encoding="utf-8")
    for name in ("page.css", "page.js"):
        page = page.replace(f"/* {name} */", HERE.joinpath(name).read_text(encoding="utf-8"))
    with files.disk_errors(path):
        files.write_text(path, page.replace('"the model"', json.dumps(model)))


def halves(*arrays):
    """Returns arrays as half floats, one after the other, in base64."""
    flat = np.concatenate([np.ravel(array) for array in arrays])
    if np.abs(flat).max() > LARGEST_HALF:
        raise UserError("these weights are too large for the page's half floats")
    return base64.b64encode(flat.astype("<f2").tobytes()).decode()


def plane(prior, latent_dim):
    """Returns the map: a plane in z, what lies on it, and its edges.

    With two latent dimensions it is all of z. Otherwise it goes through the middle of the fitted
    prior, along the two directions in which the means of its components differ most.
    """
    if latent_dim == 2:
        units, origin, axes = [0, 1], np.zeros(2), np.eye(2)
        whole = prior and len(prior["active"]) == 2
        points = prior["means"] if whole else np.zeros((0, 2))
        low, high = [-3.0, -3.0], [3.0, 3.0]
        text = "All of z, out to 3 on each side. Click or drag: the ring is the digit on show."
    else:
        units, weights, means = prior["active"].tolist(), prior["weights"], prior["means"]
        origin = weights @ means
        spread = (weights[:, None] * (means - origin)).T @ (means - origin)
        axes = np.linalg.eigh(spread)[1][:, ::-1].T[:2]
        points = (means - origin) @ axes.T
        edge = 1.1 * np.abs(points).max() + 0.1
        low, high = [-edge, -edge], [edge, edge]
        text = "The fitted prior's Gaussians, named by digit, on the plane where they differ "
        text += "most. Click or drag: the ring is the digit on show."
    found = {"units": units, "low": low, "high": high, "text": text}
    return found | {
        name: np.round(array, 4).tolist()
        for name, array in (("origin", origin), ("axes", axes), ("points", points))
    }
