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
from PIL import Image
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal

import data
from support import records
from support.analysis import fitted_prior
from support.display import explorer
from support.errors import UserError
from support.storage import weights
from support.storage.validation import Weights
from tests import helpers, photographs
from tests.helpers import ROOT

BETTER_WEIGHT = os.path.join(ROOT, "better_weight")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def slow(test):
    """Marks a test that needs a browser."""
    reason = "no chromium on this machine"
    return pytest.mark.slow(pytest.mark.skipif(not BROWSER, reason=reason)(test))


# The name of a class that would run as a script if it were not escaped.
HOSTILE = "</script><script>boom()</script><img src=x onerror=boom()>"


def with_spread(record, *mu_std):
    """A record of a posterior with these deviations of mu, and nothing in other dimensions."""
    rest = [0.0] * (record.architecture.latent_dim - len(mu_std))
    posterior = record.posterior._replace(mu_std=(*mu_std, *rest), KLD=(*mu_std, *rest))
    return dataclasses.replace(record, posterior=posterior)


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
    """What a network of residual layers returns, in double precision."""
    *hidden, last = network
    for number, (kernel, bias) in enumerate(hidden):
        inputs, x = x, x @ kernel + bias
        x = x * expit(x)
        if number and inputs.shape == x.shape:
            x = inputs + x
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
    assert explorer.SOURCES.joinpath("page.css").read_text(encoding="utf-8") in page
    for source in ("pictures.js", "page.js"):
        lines = explorer.SOURCES.joinpath(source).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith(("import ", "export "))]
        assert len(kept) < len(lines)
        assert all(line in page for line in kept)
    assert not re.search(r"^(import|export) ", page, re.MULTILINE)
    assert not re.search(r"""(src|href)=|https?://(?!personal)|@import|fetch\(""", page)


def test_text_from_files_does_not_end_the_script(written, tmp_path):
    found = written[1]
    dataset = records.DatasetRecord("custom", "0" * 64, (HOSTILE, "bee"))
    path = tmp_path / "it.html"
    record = dataclasses.replace(found.record, dataset=dataset)
    explorer.write(str(path), found._replace(record=record))
    assert HOSTILE not in path.read_text(encoding="utf-8")
    assert model_in(path)["class_names"] == [HOSTILE, "bee"]


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
        "This model was trained for 200 epochs on MNIST. It uses 17 of the 128 dimensions of z."
    )
    assert model["sliders"] == 17 and model["class_names"] == [] and model["residual"] is True
    record = found.record
    warm = dataclasses.replace(record, training={"warm_start": True})
    assert "for 200 epochs on MNIST, on top of an earlier run. It uses" in explorer.about(warm, 17)
    named = records.DatasetRecord("custom", "0" * 64, ("ant", "bee"))
    first = {"epochs_done": 1, "training": {"warm_start": False}, "dataset": named}
    changed = explorer.model_of(found._replace(record=dataclasses.replace(record, **first)))
    assert changed["about"].startswith("This model was trained for 1 epoch on custom images. It")
    assert changed["class_names"] == ["ant", "bee"]
    collapsed = explorer.model_of(found._replace(record=with_spread(record, 0.0)))
    assert collapsed["about"].endswith(
        "It uses 0 of the 128 dimensions of z. So all its images look alike, whatever z is "
        "(posterior collapse)."
    )
    assert collapsed["active"] == 0 and model["active"] == 17


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
    """A function that writes and opens the page of some weights, or of a weights folder.

    In the end, nothing may have been requested, and no error may have been logged.
    """
    seen = []

    def watch(page, address):
        page.on("console", lambda said: said.type == "error" and seen.append(said.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: request.url == address or seen.append(request.url))
        page.on("dialog", lambda dialog: seen.append(dialog.message))

    def open_page(found, fragment="", **context):
        path = tmp_path / "explorer.html"
        if not isinstance(found, Weights):
            found = weights.read(str(found))
        explorer.write(str(path), found)
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
    assert re.match("Classified as |None of these", page.inner_text("#verdict"))
    page.click("#clear")
    assert page.inner_text("#verdict") == "Nothing drawn yet."
    assert page.inner_text("#own-figures") == ""
    for name in ("Temperature", "Fraction of the second image", "z["):
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
    assert re.fullmatch(r"Classified as 7 \(p (= 0\.\d\d|> 0\.99)\)\.", page.inner_text("#verdict"))
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
    # What is no digit is not called one.
    page.click("#clear")
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    scribble = [(40, 40), (150, 150), (40, 150), (150, 40), (90, 170), (90, 20), (30, 90)]
    page.mouse.move(box["x"] + 170, box["y"] + 100)
    page.mouse.down()
    for x, y in scribble:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=6)
    page.mouse.up()
    assert re.fullmatch(
        r"None of these\. Its reconstruction error is \d\.\d times the usual one\. "
        r"The closest class is \d\.",
        page.inner_text("#verdict"),
    )


@slow
def test_at_the_size_of_a_phone_the_image_stays_in_view(opened):
    page = opened(BETTER_WEIGHT, viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picked = page.locator("#picked").bounding_box
    first, last = page.locator("#sliders input").first, page.locator("#sliders input").last
    for slider in (first, last):
        slider.scroll_into_view_if_needed()
        page.evaluate("window.scrollBy(0, 100)")
        box = slider.bounding_box()
        assert picked()["y"] >= 0 and picked()["y"] + picked()["height"] <= box["y"]
    before = grey(page, "#picked")
    last.fill("3")
    assert (grey(page, "#picked") != before).any()
    # Below the sliders it no longer stays in view.
    page.locator("#pad").scroll_into_view_if_needed()
    page.evaluate("window.scrollBy(0, 300)")
    assert picked()["y"] + picked()["height"] < 0


# The contrast of every visible text with the background behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const { backgroundColor } = getComputedStyle(element);
    const [, , , alpha = 1] = channels(backgroundColor);
    return alpha ? backgroundColor : behind(element.parentElement);
  };
  const hasText = (element) => [...element.childNodes].some((node) => {
    return node.nodeType === 3 && node.textContent.trim();
  });
  const shown = [...document.body.querySelectorAll("*")].filter((element) => {
    return hasText(element) && element.getClientRects().length && element.tagName !== "OPTION";
  });
  return shown.map((element) => {
    const pair = [getComputedStyle(element).color, behind(element)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  });
}"""


@slow
def test_text_has_contrast_in_light_and_in_dark_mode(opened, trained):
    page = opened(trained, color_scheme="dark")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20 and min(contrasts) >= 4.5
    # The map is drawn again in the colours of the scheme.
    code = "map => [...map.getContext('2d').getImageData(0, 0, 280, 280).data]"
    light = np.array(page.eval_on_selector("#map", code)).reshape(-1, 4)
    page.emulate_media(color_scheme="dark")
    dark = np.array(page.eval_on_selector("#map", code)).reshape(-1, 4)
    opaque = light[:, 3] == 255
    assert opaque.any() and (light[opaque] != dark[opaque]).any()


def photo(path, digit, kind, seed=0):
    """Writes one of the repository's test images, rendered as a photo."""
    photographs.render([digit], kind, seed).save(path)
    return str(path)


def answer(page, path):
    """Chooses a file; returns the verdict on it and the figures, once there are any."""
    page.evaluate("document.getElementById('verdict').textContent = ''")
    page.set_input_files("#file", path)
    page.wait_for_function("document.getElementById('verdict').textContent !== ''")
    return page.inner_text("#verdict"), page.inner_text("#own-figures")


@slow
def test_pictures_are_preprocessed_and_classified(opened, tmp_path):
    page = opened(BETTER_WEIGHT)
    test = data.mnist_test_100("a test").test
    images = test.images[[0, 2, 3, 4]].reshape(-1, 28, 28)
    kinds = ["clean scan", "half shadow", "gradient", "dark mode", "blackboard", "vignette"]
    kinds += ["white on transparent", "noise, blur, JPEG", "dark table"]
    for index, kind in enumerate(kinds):
        image, label = images[index % 4], test.labels[[0, 2, 3, 4]][index % 4]
        path = photo(tmp_path / f"{index}.png", image, kind, seed=index % 4)
        verdict, figures = answer(page, path)
        assert verdict.startswith(f"Classified as {label} (p"), kind
        assert figures.endswith(f"From {index}.png.")
        seen = 255 - grey(page, "#preprocessed").reshape(28, 28)
        rows, columns = np.nonzero(seen > 25)
        assert max(np.ptp(rows), np.ptp(columns)) < 20
        likeness = [
            np.corrcoef(np.roll(image, (row, column), (0, 1)).ravel(), seen.ravel())[0, 1]
            for row, column in itertools.product((-1, 0, 1), repeat=2)
        ]
        # The sheet on the table is turned, and the digit with it.
        assert max(likeness) > (0.7 if kind == "dark table" else 0.85), kind
    # An image of MNIST itself is taken as it is, and so is its negative.
    for pixels in (images[0], 255 - images[0]):
        Image.fromarray(pixels).save(tmp_path / "mnist.png")
        answer(page, str(tmp_path / "mnist.png"))
        np.testing.assert_array_equal(255 - grey(page, "#preprocessed"), images[0].ravel())


@slow
def test_files_that_show_nothing_cost_a_plain_sentence(opened, trained, tmp_path):
    page = opened(trained)
    empty = grey(page, "#preprocessed")
    (tmp_path / "note<b>.txt").write_text("no picture")
    verdict, figures = answer(page, str(tmp_path / "note<b>.txt"))
    assert verdict == (
        "note<b>.txt is not a picture that this browser can read: choose a PNG or JPEG file."
    )
    assert figures == "" and page.is_disabled("#take")
    Image.new("RGB", (800, 500), (240, 238, 230)).save(tmp_path / "blank.jpg")
    verdict, _ = answer(page, str(tmp_path / "blank.jpg"))
    assert verdict.startswith("blank.jpg shows no ink: ")
    np.testing.assert_array_equal(grey(page, "#preprocessed"), empty)
    # Two files, dropped onto the page: the first one, with two digits on it, is read.
    images = data.mnist_test_100("a test").test.images[[0, 2]]
    photographs.render(images, "clean scan", seed=0).save(tmp_path / "two.png")
    content = base64.b64encode((tmp_path / "two.png").read_bytes()).decode()
    drop = """content => {
      const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
      const moved = new DataTransfer();
      for (const name of ["two\u202e.png", "other.png"]) moved.items.add(new File([bytes], name));
      const event = (kind) => new DragEvent(kind, { dataTransfer: moved, bubbles: true,
        cancelable: true });
      const stopped = !document.body.dispatchEvent(event("dragover"));
      const marked = document.body.classList.contains("dropping");
      document.body.dispatchEvent(event("drop"));
      return [stopped, marked, document.body.classList.contains("dropping")];
    }"""
    assert page.evaluate(drop, content) == [True, True, False]
    page.wait_for_function("document.getElementById('own-figures').textContent !== ''")
    assert page.inner_text("#own-figures").endswith(
        "From two\ufffd.png. Only the first of 2 files was read. It shows several characters; "
        "the largest one was read."
    )
    page.click("#take")
    assert page.inner_text("#origin") == "two\ufffd.png"


@slow
def test_none_of_these_is_what_is_no_digit(opened):
    page = opened(BETTER_WEIGHT)
    found = weights.read(BETTER_WEIGHT)
    expected = page.evaluate("explorer.expected()")
    # The same from other samples, by other means: NumPy, and the mixture's own density.
    numbers = [np.asarray(array, float) for array in found.decoder]
    decoder = list(zip(numbers[::2], numbers[1::2], strict=True))
    random = np.random.default_rng(0)
    z = random.standard_normal((3000, 128))
    active, _, shares, means, covariances = found.prior
    component = random.choice(len(shares), 3000, p=shares / shares.sum())
    white = random.standard_normal((3000, len(active), 1))
    spread = np.linalg.cholesky(covariances)[component] @ white
    z[:, active] = means[component] + spread[:, :, 0]
    share = expit(forward(decoder, z))
    entropy = -(share * np.log(share) + (1 - share) * np.log1p(-share)).sum(1)
    assert abs(expected["bce"] / entropy.mean() - 1) < 0.1
    densities = multivariate_normal_logs(z[:, active], shares, means, covariances)
    constant = len(active) / 2 * np.log(2 * np.pi)
    assert abs(expected["logDensity"] - densities.mean() - constant) < 0.5
    assert abs(expected["deviation"] / densities.std() - 1) < 0.15
    # Digits, and the same images rotated, as letters are, and noise.
    images = data.mnist_test_100("a test").test.images[:50].reshape(-1, 28, 28) / 255
    code = "all => all.map(x => explorer.whyNone(explorer.figures(Float32Array.from(x))))"
    none = [bool(why) for why in page.evaluate(code, images.reshape(-1, 784).tolist())]
    assert np.mean(none) < 0.05
    turned = np.rot90(images, axes=(1, 2)).reshape(-1, 784)
    none = [bool(why) for why in page.evaluate(code, turned.tolist())]
    assert np.mean(none) > 0.6
    noise = random.random((10, 784))
    reasons = page.evaluate(code, noise.tolist())
    assert all(re.fullmatch(r"Its reconstruction error is \d+\.\d times .*", w) for w in reasons)


def multivariate_normal_logs(points, shares, means, covariances):
    """log of the density of a mixture of Gaussians at points (n, A), by SciPy."""
    parts = [
        np.log(share) + multivariate_normal(mean, covariance).logpdf(points)
        for share, mean, covariance in zip(shares, means, covariances, strict=True)
    ]
    return logsumexp(parts, axis=0)


def use_everything(page):
    """Uses every control of the page, by mouse and by keyboard, and opens damaged links."""
    use_samples_and_sliders(page)
    use_canvases_and_buttons(page)
    link = page.evaluate("location.hash")
    page.evaluate("location.hash = 'seed=nonsense&z=1_2&edits=0:9,x&digit=77&from=&share=5'")
    page.evaluate(f"location.hash = {json.dumps(link)}")
    page.wait_for_selector("#samples[data-full]")


def use_samples_and_sliders(page):
    for radio in page.query_selector_all("input[type=radio]:enabled"):
        radio.check()
        for option in page.query_selector_all("#digit:enabled option"):
            page.select_option("#digit", index=option.evaluate("option => option.index"))
        page.click("#again")
    for slider in page.query_selector_all("input[type=range]"):
        slider.focus()
        for key in ("End", "ArrowLeft", "Delete"):
            page.keyboard.press(key)
        slider.dblclick()
    for sample in page.query_selector_all("#samples button")[::33]:
        sample.click()
    page.focus("#samples button[aria-pressed=true]")
    page.keyboard.press("ArrowUp")


def use_canvases_and_buttons(page):
    page.click("#pad")
    page.press("#pad", "Space")
    page.press("#pad", "ArrowDown")
    for button in page.query_selector_all("button:enabled:not(#samples button)"):
        if button.get_attribute("id") != "clear":
            button.click()
    for place in ("#map", "#clear"):
        if page.is_visible(place):
            page.click(place)
    if page.is_visible("#map"):
        page.press("#map", "ArrowLeft")


def with_one_active(found):
    """Weights of which one dimension is active, and has a fitted prior."""
    active, labels, shares, means, covariances = found.prior
    prior = fitted_prior.PriorArrays(
        active[:1], labels, shares, means[:, :1], covariances[:, :1, :1]
    )
    return found._replace(prior=prior, record=with_spread(found.record, 0.5))


@pytest.fixture
def unusual(request, trained, tmp_path):
    """Weights of an unusual kind."""
    found = weights.read(str(trained))
    kind = request.param
    if kind == "one active":
        return with_one_active(found)
    if kind == "no prior":
        return found._replace(prior=None)
    if kind == "one class":
        labels = np.zeros_like(found.prior.labels)
        return found._replace(prior=found.prior._replace(labels=labels))
    if kind == "class names":
        names = (HOSTILE, "a name that is far too long for the map", "", "&amp;")
        named = records.DatasetRecord("custom", "0" * 64, names)
        return found._replace(record=dataclasses.replace(found.record, dataset=named))
    flags = {
        "collapsed": ("--recon_loss", "l2", "--beta", "1"),
        "1 dimension": ("--latent_dim", "1"),
        "2 dimensions": ("--latent_dim", "2"),
    }
    code, printed = helpers.quietly(tmp_path, "--epoch", "2", *flags[kind])
    assert code == 0, printed
    return weights.read(str(tmp_path / "weights"))


# What the page says of what was drawn, and how many sliders it has: None for the small run's own
# number, one for each latent dimension whose mu has a standard deviation above 0.1.
UNUSUAL = {
    "one active": (r"Classified as \d \(p|None of these\. .* The closest class is \d\.", 2),
    "no prior": ("(Similar to|Unlike) the training images", None),
    "one class": ("(Similar to|Unlike) the training images", None),
    "class names": (r"Classified as .* \(p|None of these\. .* The closest class is ", None),
    "collapsed": ("This model reconstructs every image in the same way", 2),
    "1 dimension": (r"Classified as \d \(p|None of these\. .* The closest class is \d\.", 1),
    "2 dimensions": (r"Classified as \d \(p|None of these\. .* The closest class is \d\.", 2),
}


@slow
@pytest.mark.parametrize("unusual", list(UNUSUAL), indirect=True)
def test_the_page_works_for_unusual_weights(opened, unusual, request):
    kind = request.node.callspec.params["unusual"]
    page = opened(unusual, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    verdict, sliders = UNUSUAL[kind]
    spreads = np.array(unusual.record.posterior.mu_std)
    assert page.locator("#sliders input").count() == (sliders or np.sum(spreads > 0.1))
    page.press("#pad", "Space")
    page.press("#pad", "ArrowDown")
    assert re.match(verdict, page.inner_text("#verdict"))
    page.click("#clear")
    use_everything(page)
    has_map = kind not in ("one active", "no prior", "collapsed", "1 dimension")
    assert page.is_visible("#map") == has_map
    assert page.inner_text("#map-text").startswith("There is no map") != has_map
    if kind == "class names":
        options = page.locator("#digit option").all_inner_texts()
        assert options[1] == HOSTILE and options[3] == "2" and options[4] == "&amp;"
        assert page.locator("img").count() == 0
    before = grey(page, "#picked")
    page.click("#reset")
    page.locator("#sliders input").first.fill("3")
    if kind != "collapsed":
        assert (grey(page, "#picked") != before).any()
