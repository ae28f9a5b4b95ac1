"""The explorer: what the page holds, and the page itself in a headless browser."""

import base64
import dataclasses
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

import data
import eval_genresult
from support import records
from support.analysis import fitted_prior
from support.display import explorer
from support.errors import UserError
from support.storage import weights
from tests.helpers import ROOT

BETTER_WEIGHT = os.path.join(ROOT, "better_weight")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def slow(test):
    """Marks a test that needs a browser."""
    reason = "no chromium on this machine"
    return pytest.mark.slow(pytest.mark.skipif(not BROWSER, reason=reason)(test))


def floats(text):
    """Returns half-precision floats in base64 as an array."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(float)


def model_in(path):
    """The weights in a page, as its script reads them."""
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="model" [^>]*>(.*?)</script>', page, re.DOTALL)[1])


def layers(numbers, sizes):
    """Cuts numbers into kernels and biases, in the order of page.js."""
    for inputs, outputs in itertools.pairwise(sizes):
        kernel, numbers = np.split(numbers, [inputs * outputs])
        bias, numbers = np.split(numbers, [outputs])
        yield kernel.reshape(inputs, outputs), bias


def forward(network, x):
    *hidden, last = network
    for kernel, bias in hidden:
        x = x @ kernel + bias
        x = x * expit(x)
    return x @ last[0] + last[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the pretrained weights: its path, and the weights."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    found = weights.read(BETTER_WEIGHT)
    explorer.write(str(path), found)
    return path, found


def test_the_page_holds_everything_and_asks_for_nothing(written):
    path, _ = written
    page = path.read_text(encoding="utf-8")
    assert '"the model"' not in page and "/* page." not in page
    for source in ("page.css", "page.js"):
        assert explorer.SOURCES.joinpath(source).read_text(encoding="utf-8") in page
    assert not re.search(r"""(src|href)=|https?://(?!personal)|@import|fetch\(""", page)


def test_its_network_is_that_of_the_weights(written):
    path, found = written
    model = model_in(path)
    numbers = floats(model["weights"])
    encoder_size = sum((a + 1) * b for a, b in itertools.pairwise(model["encoder"]))
    encoder = list(layers(numbers[:encoder_size], model["encoder"]))
    decoder = list(layers(numbers[encoder_size:], model["decoder"]))
    vae = weights.build(found)
    images = data.mnist_test_100("a test").test.images[:20] / 255
    mu, log_var = np.split(forward(encoder, images), 2, axis=1)
    expected = vae.encoder(images.astype(np.float32))
    np.testing.assert_allclose(mu, expected[0], atol=0.01)
    np.testing.assert_allclose(log_var, expected[1], atol=0.02)
    decoded = expit(forward(decoder, mu))
    logits = vae.decoder(expected[0])
    np.testing.assert_allclose(decoded, tf.sigmoid(logits), atol=2 / 255)


def test_its_prior_is_that_of_the_weights(written):
    path, found = written
    prior, plane = model_in(path)["prior"], model_in(path)["plane"]
    active, labels, component_weights, means, covariances = found.prior
    assert prior["active"] == active.tolist() and prior["labels"] == labels.tolist()
    assert prior["weights"] == component_weights.tolist()
    np.testing.assert_allclose(floats(prior["means"]), means.ravel(), atol=0.005)
    factors = floats(prior["factors"]).reshape(covariances.shape)
    np.testing.assert_allclose(factors @ factors.swapaxes(1, 2), covariances, atol=0.01)
    # The map is a plane through the prior's mean, and its points are projections of the means.
    axes, origin = np.array(plane["axes"]), np.array(plane["origin"])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-3)
    np.testing.assert_allclose(origin, component_weights @ means, atol=1e-3)
    np.testing.assert_allclose(plane["points"], (means - origin) @ axes.T, atol=1e-2)
    spread = np.var((means - origin) @ axes.T, axis=0)
    assert spread[0] > spread[1] > np.var(means, axis=0).mean()


def test_the_sentences_on_the_weights(written):
    path, found = written
    model = model_in(path)
    assert model["about"] == (
        "This model was trained for 150 epochs on MNIST, starting from the weights of an earlier "
        "run. It uses 15 of the 128 dimensions of z."
    )
    assert model["sliders"] == 15 and model["class_names"] == []
    record = found.record
    named = records.DatasetRecord("custom", "0" * 64, ("ant", "bee"))
    first = {"epochs_done": 1, "training": {"warm_start": False}, "dataset": named}
    changed = explorer.model_of(found._replace(record=dataclasses.replace(record, **first)))
    assert changed["about"].startswith("This model was trained for 1 epoch on custom images. It")
    assert changed["class_names"] == ["ant", "bee"]


def test_weights_without_a_prior_have_a_page_without_a_map(written):
    found = written[1]
    model = explorer.model_of(found._replace(prior=None))
    assert model["prior"] is None and model["plane"] is None
    flat = weights.read(os.path.join(BETTER_WEIGHT, "latent2"))
    plane = explorer.model_of(flat)["plane"]
    assert plane["axes"] == [[1, 0], [0, 1]] and plane["high"] == [3, 3]
    np.testing.assert_allclose(plane["points"], flat.prior.means, atol=1e-4)
    assert explorer.plane(None, 2)["points"] == []
    line = fitted_prior.PriorArrays(*(array[:1] for array in flat.prior))
    assert explorer.plane(line, 128) is None


def test_weights_beyond_half_floats_cost_one_line(written, tmp_path):
    found = written[1]
    bias = found.decoder[-1] + 70_000
    large = found._replace(decoder=[*found.decoder[:-1], bias])
    with pytest.raises(UserError, match=r"at most 65,504, which .* half precision, got 70,"):
        explorer.write(str(tmp_path / "it.html"), large)
    assert not list(tmp_path.iterdir())


def test_a_page_replaces_a_page_and_no_other_file(written, trained, tmp_path):
    path = tmp_path / "it.html"
    for content in (b"<!DOCTYPE html><p>an older page", b""):
        path.write_bytes(content)
        explorer.write(str(path), written[1])
        assert path.read_bytes() == written[0].read_bytes()
    saved = tmp_path / "vae.keras"
    saved.write_bytes((trained / "vae.keras").read_bytes())
    with pytest.raises(UserError, match=r"exists and is not a web page: choose another name"):
        explorer.write(str(saved), written[1])
    assert saved.read_bytes() == (trained / "vae.keras").read_bytes()


def test_halves_are_read_as_they_were_written():
    numbers = np.array([0.5, -3.25, 65504, 2**-14, 0])
    np.testing.assert_array_equal(floats(explorer.halves(numbers[:2], numbers[2:])), numbers)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes and opens the page of a weights folder.

    In the end, nothing may have been requested, and no error may have been logged.
    """
    seen = []

    def watch(page, address):
        page.on("console", lambda said: said.type == "error" and seen.append(said.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: request.url == address or seen.append(request.url))

    def open_page(folder, fragment="", **context):
        path = tmp_path / "explorer.html"
        argv = ["--load_weight_dir", str(folder), "--output_dir", str(tmp_path / "out")]
        assert eval_genresult.main([*argv, "--page", str(path)]) == 0
        page = browser.new_context(offline=True, **context).new_page()
        watch(page, f"file://{path}")
        page.goto(f"file://{path}{fragment}")
        page.wait_for_selector("#samples[data-full]")
        return page

    yield open_page
    assert seen == []


def grey(page, canvas):
    """The pixels of a canvas as the page drew them, 0 black to 255 white."""
    code = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.eval_on_selector(canvas, code))[::4]


@slow
@pytest.mark.parametrize("folder", ["better_weight", "trained"])
def test_the_page_computes_what_tensorflow_does(opened, request, folder):
    folder = request.getfixturevalue("trained") if folder == "trained" else BETTER_WEIGHT
    page = opened(folder)
    vae, _ = weights.load(str(folder))
    z = np.random.default_rng(0).standard_normal((200, vae.latent_dim), np.float32)
    code = "all => all.map(z => [...explorer.decode(Float32Array.from(z))])"
    digits = np.array(page.evaluate(code, z.tolist()))
    assert np.abs(digits - tf.sigmoid(vae.decode(z))).max() < 2 / 255
    images = data.mnist_test_100("a test").test.images[:50] / np.float32(255)
    code = "all => all.map(x => [...explorer.encode(Float32Array.from(x)).mu])"
    mu = np.array(page.evaluate(code, images.tolist()))
    assert np.abs(mu - vae.encode(images)[0]).max() < 0.005
    code = "all => all.map(mu => explorer.classify(Float32Array.from(mu)))"
    classes = page.evaluate(code, mu.tolist())
    mixture = fitted_prior.Mixture(weights.read(str(folder)).prior)
    labels, probabilities = (part.numpy() for part in mixture.classify(mu.astype(np.float32)))
    assert [found["label"] for found in classes] == labels.tolist()
    found = [found["probability"] for found in classes]
    np.testing.assert_allclose(found, probabilities, atol=0.02)


@slow
def test_every_control_works_by_keyboard(opened, trained):
    page = opened(trained)
    first = grey(page, "#picked")
    page.focus("#samples button[aria-pressed=true]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.get_attribute("#samples button:nth-child(11)", "aria-pressed") == "true"
    picked = grey(page, "#picked")
    assert (picked != first).any()
    page.focus("#sliders input")
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    changed = grey(page, "#picked")
    assert (changed != picked).any()
    # The small picture of the sample changes, too.
    np.testing.assert_array_equal(grey(page, "#samples button:nth-child(11) canvas"), changed)
    link = page.url
    page.keyboard.press("Delete")
    np.testing.assert_array_equal(grey(page, "#picked"), picked)
    page.focus("#share")
    before = grey(page, "#path-now")
    page.keyboard.press("Home")
    np.testing.assert_array_equal(grey(page, "#path-now"), grey(page, "#path-from"))
    assert (grey(page, "#path-now") != before).any()
    page.focus("#map")
    page.keyboard.press("ArrowUp")
    pointed = grey(page, "#picked")
    assert (pointed != picked).any() and page.inner_text("#origin") == "From the map"
    page.click("#to")
    np.testing.assert_array_equal(grey(page, "#path-to"), pointed)
    map_link = page.url
    page.focus("#pad")
    for key in [" ", *["ArrowDown"] * 8, " "]:
        page.keyboard.press(key)
    assert "Classified as " in page.inner_text("#own-figures")
    page.click("#clear")
    assert page.inner_text("#own-figures") == "Nothing drawn yet."
    for name in ("Temperature", "Fraction of the second digit", "z["):
        assert page.get_by_role("slider", name=name).first.is_visible()
    # A link shows the same digit, in a new page and in an open one.
    page = opened(trained, "#" + link.partition("#")[2])
    np.testing.assert_array_equal(grey(page, "#picked"), changed)
    page.goto(map_link)
    page.wait_for_function("document.getElementById('origin').textContent === 'From the link'")
    np.testing.assert_array_equal(grey(page, "#picked"), pointed)
    np.testing.assert_array_equal(grey(page, "#path-to"), pointed)
    np.testing.assert_array_equal(grey(page, "#path-now"), grey(page, "#path-from"))
    page.check("input[value=standard]")
    page.wait_for_selector("#samples[data-full]")
    assert "N(0, I) is the prior used in training" in page.inner_text("#samples-text")


@slow
def test_a_drawn_digit_is_preprocessed_and_reconstructed(opened):
    page = opened(BETTER_WEIGHT, viewport={"width": 1280, "height": 800})
    box = page.locator("#pad").bounding_box()
    points = [(50, 50), (140, 50), (120, 90), (100, 150)]
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    for x, y in points:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
    page.mouse.up()
    assert 20 < float(page.inner_text("#own-figures").split()[1]) < 150
    preprocessed, reconstructed = (
        grey(page, "#preprocessed").astype(float),
        grey(page, "#reconstructed"),
    )
    ink = (255 - preprocessed).reshape(28, 28)
    assert np.ptp(np.flatnonzero(ink.any(1))) + 1 == 20  # scaled to MNIST's 20x20
    assert np.sqrt(np.mean((preprocessed - reconstructed) ** 2)) / 255 < 0.2
    page.click("#take")
    assert np.abs(grey(page, "#picked") - reconstructed).max() <= 1


@slow
def test_the_page_fits_a_telephone(opened):
    page = opened(BETTER_WEIGHT, viewport={"width": 375, "height": 812})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
