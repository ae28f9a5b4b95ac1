"""bench/: the formulas behind the results, against cases with a known answer."""

import numpy as np
import pytest
import tensorflow as tf

import model
import train
from bench import contenders, run, samples, scaling, time_to_quality


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
    assert size == 4 * sum(w.numpy().size for w in model.VAE().trainable_variables)
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
    found = time_to_quality.judged(runs, args, None)
    (label,) = found["thresholds"]
    assert found["thresholds"][label] == 105  # the mean of 106 and 104
    reached = found["reached"][label]
    assert set(reached) == {"another", time_to_quality.ours_of(2)}
    assert reached["another"] == {"training": 15.0, "range": [10.0, 20.0], "command": 20.0}
    assert reached[time_to_quality.ours_of(2)]["training"] == 3.5
    assert "4.3 times as fast as another (2.2 times including start-up)" in capsys.readouterr().out


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
