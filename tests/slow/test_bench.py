"""bench/: the formulas behind the results, against cases with a known answer."""

import numpy as np
import pytest
import tensorflow as tf

import data
import model
import train
from bench import anomaly, contenders, run, samples, scaling, time_to_quality, unlike_mnist
from support.storage import weights
from tests.helpers import ROOT


def test_frechet_distance_of_gaussians_that_share_their_axes():
    """In this case it is |m1 - m2|^2 + sum (s1 - s2)^2, under any rotation."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(5, 5)))[0]
    m1, m2, s1, s2 = random.random((4, 5))
    c1, c2 = (rotation @ np.diag(s**2) @ rotation.T for s in (s1, s2))
    found = samples.frechet_distance((m1, c1), (m2, c2))
    assert found == pytest.approx(np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2))
    assert samples.frechet_distance((m1, c1), (m1, c1)) == pytest.approx(0, abs=1e-9)


def test_the_prediction_of_scaling_returns_the_constants_it_was_made_from():
    one = {"steps": {str(batch): 2e-3 + 1e-5 * batch for batch in (100, 50, 25)}}
    two = {"reductions": {str(size): 4e-4 + 2e-9 * size for size in (4000, 1000000)}}
    found = scaling.fitted(one, two)
    assert found["fixed"] == pytest.approx(2e-3) and found["per_image"] == pytest.approx(1e-5)
    assert found["latency"] == pytest.approx(4e-4) and found["per_byte"] == pytest.approx(2e-9)
    size = found["bytes"]
    trained = model.VAE(*scaling.ARCHITECTURE).trainable_variables
    assert size == 4 * sum(w.numpy().size for w in trained)
    expected = 2e-3 + 1e-5 * 50 + 4e-4 + 2e-9 * size
    assert scaling.predicted(found, 2) == pytest.approx(expected)
    # A connection slower than the machine's own copying sets the pace; a faster one does not.
    assert scaling.predicted(found, 2, gigabits=1) == pytest.approx(expected + (8e-9 - 2e-9) * size)
    assert scaling.predicted(found, 2, gigabits=100) == pytest.approx(expected)


@pytest.mark.parametrize("hidden_units, draws", [((512, 256), 1), ((40, 30, 20), 3)])
def test_the_flops_of_the_limit_are_those_of_the_graph(hidden_units, draws):
    """Every matrix product in the graph of a step is counted, forward and backward."""
    vae, images = model.VAE(hidden_units), 5
    shape = [images, 128] if draws == 1 else [draws, images, 128]

    @tf.function
    def step():
        return train.loss_and_gradients(vae, tf.zeros([images, 784]), tf.zeros(shape), "bce", 1.0)

    counted = 0
    for op in step.get_concrete_function().graph.get_operations():
        if op.type == "MatMul":
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            counted += 2 * inner * op.outputs[0].shape.num_elements()
    assert run.flops_of_training(hidden_units, draws) * images == counted


def test_time_to_quality_is_when_every_seed_is_there(capsys):
    """For a peer, the first epoch that is good enough counts; for a run of ours, its end.

    One that is not good enough with some seed does not count at all.
    """

    def peer(*elbo):
        return {"start_up": 5.0, "seconds": [10.0, 20.0, 30.0], "elbo": elbo}

    def own(elbo, seconds):
        return {"start_up": 8.0, "seconds": [1.0, seconds], "elbo": [200.0, elbo], "command": 9.0}

    runs = {
        time_to_quality.EXAMPLE: [peer(120, 110, 106), peer(120, 108, 104)],
        "another": [peer(105, 100, 99), peer(106, 104, 99)],
        time_to_quality.ours_of(1): [own(104, 2.0), own(106, 2.0)],
        time_to_quality.ours_of(2): [own(103, 3.0), own(104, 4.0)],
    }
    args = time_to_quality.parser().parse_args(["--long_seeds", "0"])
    found = time_to_quality.judged(runs, args, "")
    (label,) = found["thresholds"]
    assert found["thresholds"][label] == 105  # the mean of 106 and 104
    reached = found["reached"][label]
    assert set(reached) == {"another", time_to_quality.ours_of(2)}
    assert reached["another"] == {"training": 15.0, "range": [10.0, 20.0], "command": 20.0}
    assert reached[time_to_quality.ours_of(2)]["training"] == 3.5
    assert "4.3 times as fast as another (2.2 times including start-up)" in capsys.readouterr().out


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_quick_form_compares_one_epoch_with_the_example(
    is_installed, monkeypatch, tmp_path, capsys
):
    """The runs themselves are replaced. Without PyTorch, ours alone is shown."""
    started = []

    def own(args, seed, flags):
        started.append((seed, *flags))
        return {"start_up": 8.0, "seconds": [4.0], "elbo": [104.0], "command": 13.0}

    def peer(args, seed, name, epochs):
        started.append((seed, name, epochs))
        if not is_installed:
            return None
        return {"start_up": 5.0, "seconds": [30.0, 60.0], "elbo": [110.0, 107.0]}

    monkeypatch.setattr(time_to_quality, "own_run", own)
    monkeypatch.setattr(time_to_quality, "baseline_run", peer)
    argv = ["--quick", "--output_dir", str(tmp_path)]
    assert time_to_quality.main(argv) == 0
    assert started == [(0, "--epoch", "1"), (0, time_to_quality.EXAMPLE, 10)]
    assert (tmp_path / "quality.png").is_file()
    faster = "15.0 times as fast as PyTorch's example (5.0 times including start-up)"
    assert (faster in capsys.readouterr().out) == is_installed


def test_contenders_of_this_installation_learn_the_same():
    """Two epochs of the same small model; bench/run.py itself checks PyTorch and JAX."""
    flags = ["--dataset", "digits", "--images", "2000", "--hidden_units", "32", "--latent_dim", "4"]
    losses = {}
    for name in ("ours", "keras_fit", "keras_fit_compiled"):
        turn = contenders.CONTENDERS[name](contenders.parser().parse_args([name, *flags]))
        losses[name] = [float(turn()) for _ in range(2)]
    first, second = np.array(list(losses.values())).T
    assert (second < 0.8 * first).all()
    assert second.max() - second.min() < 0.05 * second.mean()


def test_an_auroc_is_the_share_of_pairs_in_the_right_order():
    random = np.random.default_rng(0)
    normal, other = random.normal(0, 1, 40), random.normal(0.5, 1, 30)
    found = anomaly.auroc(normal, other)
    assert found.value == pytest.approx(np.mean(other[:, None] > normal))
    assert anomaly.auroc(normal, normal).value == pytest.approx(0.5)
    # An image alone, and one that ties with half of the others.
    assert anomaly.auroc(np.array([1.0, 2.0]), np.array([2.0])) == (0.75, None)


def test_the_standard_error_of_an_auroc_is_its_spread_over_experiments():
    """Hanley and McNeil assume exponential scores: with these, the formula holds."""
    random = np.random.default_rng(0)
    areas = []
    for _ in range(2000):
        normal, other = random.exponential(1, 60), random.exponential(3, 40)
        areas.append(anomaly.auroc(normal, other).value)
    assert np.mean(areas) == pytest.approx(3 / 4, abs=0.01)
    expected = anomaly.hanley_mcneil(3 / 4, 60, 40)
    assert np.std(areas) == pytest.approx(expected, rel=0.08)


def test_means_of_aurocs_have_the_errors_of_what_varies():
    one, other = anomaly.Auroc(0.8, 0.03), anomaly.Auroc(0.9, 0.05)
    assert anomaly.mean_over_seeds([one]) == pytest.approx(one)
    # 0.1 / sqrt(2) is their standard deviation, 0.05 the standard error of their mean.
    expected = (0.85, np.sqrt(0.04**2 + 0.05**2))
    assert anomaly.mean_over_seeds([one, other]) == pytest.approx(expected)
    results = {"0": {"loss_total": one}, "1": {"loss_total": other}}
    (mean,) = anomaly.mean_over_digits(results).values()
    expected = (0.85, np.sqrt(0.03**2 + 0.05**2) / 2)
    assert mean == {"loss_total": pytest.approx(expected)}


def test_images_unlike_mnist_are_what_they_are_called():
    images = np.random.default_rng(0).integers(0, 256, (5, 784), np.uint8)
    turned = unlike_mnist.rotated(images, 1).reshape(5, 28, 28)
    np.testing.assert_array_equal(turned[2, 27, :], images[2].reshape(28, 28)[:, 0])
    np.testing.assert_array_equal(unlike_mnist.rotated(unlike_mnist.rotated(images, 1), 3), images)
    grey = np.full((50, 784), 128, np.uint8)
    noisy = unlike_mnist.noisy(grey, 0.1, seed=0).astype(float)
    assert noisy.std() == pytest.approx(25.5, rel=0.02) and noisy.mean() == pytest.approx(
        128, abs=1
    )
    assert unlike_mnist.constant([0, 7]).tolist() == [[0] * 784, [7] * 784]
    halves = unlike_mnist.upper_halves(images).reshape(5, 28, 28)
    np.testing.assert_array_equal(halves[:, :14], images.reshape(5, 28, 28)[:, :14])
    assert not halves[:, 14:].any() and images.reshape(5, 28, 28)[:, 14:].any()
    letters = unlike_mnist.printed("aT")
    assert len(letters) == 24 and len(np.unique(letters, axis=0)) == 24
    # As MNIST's digits: 20 pixels high or wide, in the middle.
    for letter in letters.reshape(-1, 28, 28) > 20:
        rows, columns = np.flatnonzero(letter.any(1)), np.flatnonzero(letter.any(0))
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) <= 21
    clothes = unlike_mnist.clothing(10, seed=0)
    assert len(np.unique(clothes, axis=0)) == 10
    assert ((clothes > 50).mean(axis=1) > 0.1).all() and clothes.max() <= 0.95 * 255


def test_scores_of_the_pretrained_weights_tell_noise_from_digits(mnist_dir):
    """Noise is detected; a blank image has a lower -ELBO than most digits."""
    found = weights.read(f"{ROOT}/better_weight")
    score = anomaly.scorer(found, seed=0)
    test = data.load("mnist", mnist_dir).test.images[:1000]
    others = {"noise": unlike_mnist.noisy(test, 0.3, 0), "blank": unlike_mnist.constant([0])}
    results = anomaly.compared(score, test, others)
    assert results["noise"]["loss_total"].value > 0.999
    assert results["blank"]["loss_total"].value < 0.3
    assert set(results["noise"]) == set(anomaly.SCORES)
