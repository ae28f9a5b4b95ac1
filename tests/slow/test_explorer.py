"""The explorer in a headless browser, without a network: its numbers, its controls, its links."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import eval_genresult
from support.storage import weights
from tests.helpers import ROOT, last_line

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes and opens the page of a weights folder; at the end nothing may have
    been requested, and no error logged."""
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
    """The pixels of a canvas as the page drew them, 0 black to 255."""
    code = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.eval_on_selector(canvas, code))[::4]


@pytest.mark.parametrize("folder", ["better_weight", "trained"])
def test_the_page_computes_what_tensorflow_does(opened, request, folder):
    folder = folder if folder == "better_weight" else request.getfixturevalue(folder)
    page = opened(folder)
    vae, _ = weights.load(str(folder))
    z = np.random.default_rng(0).standard_normal((200, vae.latent_dim), np.float32)
    code = "all => all.map(z => [...explorer.decode(Float32Array.from(z))])"
    digits = np.array(page.evaluate(code, z.tolist()))
    assert np.abs(digits - tf.sigmoid(vae.decode(z))).max() < 2 / 255
    images = np.load(os.path.join(ROOT, "better_weight", "mnist_test_100.npz"))["x_test"].reshape(
        -1, 784
    )[:50] / np.float32(255)
    code = "all => all.map(x => [...explorer.encode(Float32Array.from(x)).mu])"
    mu = np.array(page.evaluate(code, images.tolist()))
    assert np.abs(mu - vae.encode(images)[0]).max() < 0.005


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
    # The wall's digit morphs with it.
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
    assert "by the fitted prior" in page.inner_text("#own-figures")
    page.click("#clear")
    assert page.inner_text("#own-figures") == "Nothing drawn yet."
    for name in ("Temperature", "Share of the second digit", "z["):
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
    assert "N(0, I) is the prior of training" in page.inner_text("#samples-text")


def test_a_drawn_digit_is_preprocessed_and_reconstructed(opened):
    page = opened("better_weight", viewport={"width": 1280, "height": 800})
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
    assert np.ptp(np.flatnonzero(ink.any(1))) + 1 == 20  # scaled to MNIST's box
    assert np.sqrt(np.mean((preprocessed - reconstructed) ** 2)) / 255 < 0.2
    page.click("#take")
    assert np.abs(grey(page, "#picked") - reconstructed).max() <= 1


def test_other_weights_have_a_page_or_one_line(opened, trained, copy, tmp_path, capsys):
    page = opened("better_weight", viewport={"width": 375, "height": 812})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    (copy / "vae.keras").unlink()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "out"), "--page"]
    assert eval_genresult.main([*argv, str(tmp_path / "nowhere" / "page.html")]) == 2
    assert "nowhere/page.html cannot be written" in last_line(capsys.readouterr().err)
