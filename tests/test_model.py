"""model.py: the loss against other computations, gradients, shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

import model
import train
from support import noise, records
from support.storage import weights_file


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")  # the type of the inputs of functional models
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("hidden, latent, batch", [((9,), 1, 1), ((33, 17, 5), 7, 3)])
def test_shapes_for_odd_sizes(hidden, latent, batch):
    vae = model.VAE(hidden, latent, "tanh")
    mu, log_var = vae.encode(tf.zeros([batch, 784]))
    assert mu.shape == log_var.shape == (batch, latent)
    assert vae.decode(mu).shape == (batch, 784)
    assert vae.decode(tf.zeros([2, batch, latent])).shape == (2, batch, 784)
    places = weights_file.places(records.Architecture(hidden, latent, "tanh"))
    shapes = [place.shape for part in ("encoder", "decoder") for place in places[part]]
    assert [tuple(v.shape) for v in vae.trainable_variables] == shapes


def test_the_default_network_has_four_hidden_layers_and_is_mirrored():
    shapes = [tuple(v.shape) for v in model.VAE().trainable_variables if len(v.shape) == 2]
    equal = [(224, 224), (224, 224)]
    assert shapes[:5] == [(784, 448), (448, 224), *equal, (224, 2 * 128)]
    assert shapes[5:] == [(128, 224), *equal, (224, 448), (448, 784)]


@pytest.mark.parametrize("activation", records.ACTIVATIONS)
def test_the_network_is_dense_layers_with_an_activation_between_them(activation):
    """Compared with NumPy and the activations of their papers; both outputs are linear."""
    keras.utils.set_random_seed(4)
    vae = model.VAE((9, 7), 3, activation, residual=True)
    for variable in vae.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(0, 0.2, variable.shape))
    values = [variable.numpy().astype(float) for variable in vae.trainable_variables]
    activate = {
        "silu": lambda x: x / (1 + np.exp(-x)),
        "relu": lambda x: np.maximum(x, 0),
        "gelu": lambda x: x * stats.norm.cdf(x),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "tanh": np.tanh,
    }[activation]

    def forward(x, layers):
        for i in range(0, len(layers), 2):
            x = x @ layers[i] + layers[i + 1]
            x = activate(x) if i + 2 < len(layers) else x
        return x

    images = np.random.default_rng(1).random((5, 784))
    mu, log_var = vae.encode(images.astype(np.float32))
    both = forward(images, values[:6])
    # Keras computes GELU exactly or by its tanh approximation; the results agree within 1e-3.
    close = {"rtol": 1e-4, "atol": 2e-3 if activation == "gelu" else 1e-5}
    np.testing.assert_allclose(mu, both[:, :3], **close)
    np.testing.assert_allclose(log_var, both[:, 3:], **close)
    z = np.random.default_rng(2).normal(size=(2, 5, 3))
    np.testing.assert_allclose(vae.decode(z.astype(np.float32)), forward(z, values[6:]), **close)


@pytest.mark.parametrize("residual", [True, False])
def test_hidden_layers_as_wide_as_the_one_before_add_its_output(residual):
    """Not the first one, even if it is as wide as z; and not one of another width."""
    vae = model.VAE((6, 3, 3, 3), 3, "tanh", residual)
    random = np.random.default_rng(0)
    for variable in vae.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    kernels = [value.numpy() for value in vae.trainable_variables]

    def layer(x, index):
        return np.tanh(x @ kernels[index] + kernels[index + 1])

    def hidden_layer(x, index):
        return layer(x, index) + x if residual else layer(x, index)

    images = np.random.default_rng(1).random((5, 784), np.float32)
    hidden = hidden_layer(hidden_layer(layer(layer(images, 0), 2), 4), 6)
    both = hidden @ kernels[8] + kernels[9]
    np.testing.assert_allclose(vae.encode(images)[0], both[:, :3], rtol=1e-4, atol=1e-5)
    z = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    hidden = layer(hidden_layer(hidden_layer(layer(z, 10), 12), 14), 16)
    expected = hidden @ kernels[18] + kernels[19]
    np.testing.assert_allclose(vae.decode(z), expected, rtol=1e-4, atol=1e-5)


def test_log_var_is_bounded_so_that_the_loss_stays_finite():
    """The loss and its gradients, for an image that drives the last layer far up."""
    vae = model.VAE((6, 5), 3)
    layer = vae.encoder.get_layer("mu_and_log_var")
    layer.bias.assign([0, 0, 0, 200, 3, -7])
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    images = np.random.default_rng(1).random((5, 784), np.float32)
    np.testing.assert_array_equal(vae.encode(images)[1], [[10, 3, -7]] * 5)
    drawn = noise.normal([5, 3], 0, noise.TRAINING, 0)
    terms, gradients = train.loss_and_gradients(vae, tf.constant(images), drawn, "bce", 1.0)
    assert np.isfinite(terms["objective"]) and all(np.isfinite(g).all() for g in gradients)


def test_the_keras_model_is_the_same_network():
    keras.utils.set_random_seed(4)
    vae = model.VAE((9, 7, 7), 3)
    images = np.random.default_rng(0).random((5, 784), np.float32)
    whole = vae.as_keras_model()
    found = whole(images)
    mu, log_var = vae.encode(images)
    np.testing.assert_allclose(found["mu"], mu, rtol=1e-6)
    np.testing.assert_allclose(found["log_var"], log_var, rtol=1e-6)
    np.testing.assert_allclose(found["logits"], vae.decode(mu), rtol=1e-5, atol=1e-6)
    # Users of a weights file rely on these names.
    assert whole.get_layer("encoder") is vae.encoder and whole.get_layer("decoder") is vae.decoder
    assert whole.name == "vae"
    assert [layer.name for layer in vae.decoder.layers][-1] == "logits"
    assert "mu_and_log_var" in [layer.name for layer in vae.encoder.layers]


def test_initial_weights_are_drawn_for_the_encoder_first():
    """In another order, the same seed would give other weights."""
    keras.utils.set_random_seed(7)
    found = [value.numpy() for value in model.VAE((6,), 2).trainable_variables]
    keras.utils.set_random_seed(7)
    parts = [
        model.build_encoder((6,), 2, "silu", residual=True),
        model.build_decoder((6,), 2, "silu", residual=True),
    ]
    expected = [value.numpy() for part in parts for value in part.trainable_variables]
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert found[0].std() > 0 and not found[1].any()


def test_reparameterized_z_has_the_mean_and_deviation_of_q():
    drawn = noise.normal([200_000, 2], 3, noise.TRAINING, 0)
    z = model.reparameterize(tf.constant([[1.0, -2.0]]), tf.constant([[0.0, np.log(9.0)]]), drawn)
    # Five standard errors of the mean, and of the standard deviation.
    assert np.abs(z.numpy().mean(0) - [1, -2]).max() < 5 * 3 / 200_000**0.5
    np.testing.assert_allclose(z.numpy().std(0), [1, 3], rtol=5 / (2 * 200_000) ** 0.5)


def test_bce_is_the_bernoulli_log_likelihood_and_finite_at_the_extremes():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (5, 784))
    binary = random.integers(0, 2, (5, 784))
    expected = -stats.bernoulli.logpmf(binary, 1 / (1 + np.exp(-logits))).sum(axis=1)
    computed = model.loss_bce(tf.constant(binary, tf.float64), tf.constant(logits))
    np.testing.assert_allclose(computed, expected, rtol=1e-9)
    grey = random.random((5, 784))
    p = 1 / (1 + np.exp(-logits))
    expected = -(grey * np.log(p) + (1 - grey) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(model.loss_bce(grey, tf.constant(logits)), expected, rtol=1e-9)
    extreme = model.loss_bce(np.ones((1, 784), "float32"), tf.fill([1, 784], -1e4))
    np.testing.assert_allclose(extreme, [784e4], rtol=1e-5)


def test_kl_is_the_integral_of_its_definition():
    mu, log_var = [0.3, -1.2, 2.0], [-0.5, 0.7, -3.0]

    def integrand(z, q):
        return q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z))

    expected = [
        integrate.quad(integrand, m - 12 * s, m + 12 * s, args=(stats.norm(m, s),), points=[m])[0]
        for m, s in zip(mu, np.exp(np.array(log_var) / 2), strict=True)
    ]
    given = tf.constant([mu], tf.float64), tf.constant([log_var], tf.float64)
    np.testing.assert_allclose(model.kld_per_unit(*given), [expected], rtol=1e-8)
    np.testing.assert_allclose(model.loss_KLD(*given), [sum(expected)], rtol=1e-8)


def test_l2_and_rmse_by_hand():
    images = np.zeros((2, 784), "float32")
    logits = tf.zeros([2, 784])  # every pixel 0.5 off
    np.testing.assert_allclose(model.loss_l2(images, logits), [14.0, 14.0], rtol=1e-6)
    np.testing.assert_allclose(model.rmse(model.loss_l2(images, logits)), [0.5, 0.5], rtol=1e-6)


def test_the_terms_of_several_samples_are_those_of_each():
    random = np.random.default_rng(3)
    images, logits = random.random((5, 784)), random.normal(size=(3, 5, 784))
    mu, log_var = random.normal(size=(2, 5, 4))
    together = model.loss_terms(*map(tf.constant, (images, mu, log_var, logits)))
    assert tuple(together) == ("loss_total", "loss_bce", "loss_KLD", "loss_l2", "RMSE")
    for sample in range(3):
        alone = model.loss_terms(*map(tf.constant, (images, mu, log_var, logits[sample])))
        for name, values in alone.items():
            assert values.shape == (5,)
            np.testing.assert_allclose(together[name][sample], values, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(
        together["loss_total"], together["loss_bce"] + together["loss_KLD"], rtol=1e-12
    )
    np.testing.assert_allclose(together["RMSE"], together["loss_l2"] / 28, rtol=1e-12)
    pixels = 1 / (1 + np.exp(-logits)) - images
    np.testing.assert_allclose(together["loss_l2"], np.linalg.norm(pixels, axis=-1), rtol=1e-9)


def test_the_objective_is_a_mean_with_a_weight_on_the_kl_term():
    terms = {
        "loss_bce": tf.constant([[1.0, 5.0], [3.0, 7.0]]),
        "loss_l2": tf.constant([[2.0, 4.0], [0.0, 4.0]]),
        "loss_KLD": tf.constant([[10.0, 30.0], [10.0, 30.0]]),
    }
    assert float(model.objective(terms)) == 4 + 20
    assert float(model.objective(terms, "bce", 0.5)) == 4 + 10
    assert float(model.objective(terms, "l2", 2.0)) == 2.5 + 40


@pytest.mark.parametrize(
    "recon_loss, beta, samples", [("bce", 1.0, 1), ("bce", 0.3, 1), ("l2", 1.0, 1), ("bce", 1.0, 2)]
)
def test_gradients_agree_with_finite_differences(float64, recon_loss, beta, samples):
    """Along a random direction in all weights, through the reparameterization."""
    keras.utils.set_random_seed(1)
    vae = model.VAE((7, 5, 5), 3, "silu", residual=True)
    random = np.random.default_rng(2)
    images = tf.constant(random.random((4, 784)))
    drawn = tf.constant(random.normal(size=(4, 3) if samples == 1 else (samples, 4, 3)))
    _, grads = train.loss_and_gradients(vae, images, drawn, recon_loss, beta)
    start = [variable.numpy() for variable in vae.trainable_variables]
    direction = [random.normal(size=value.shape) for value in start]
    step = 1e-6

    def objective_at(distance):
        for variable, value, d in zip(vae.trainable_variables, start, direction, strict=True):
            variable.assign(value + distance * d)
        terms, _ = train.loss_and_gradients(vae, images, drawn, recon_loss, beta)
        return float(terms["objective"])

    numeric = (objective_at(step) - objective_at(-step)) / (2 * step)
    analytic = sum(float(np.sum(g * d)) for g, d in zip(grads, direction, strict=True))
    assert analytic == pytest.approx(numeric, rel=1e-6)


def test_importance_weights_are_the_densities_they_are_named_after():
    random = np.random.default_rng(4)
    mu, log_var = random.normal(size=(2, 5, 3))
    drawn = random.normal(size=(4, 5, 3))
    bce = random.random((4, 5))
    deviation = np.exp(log_var / 2)
    z = mu + deviation * drawn
    prior = stats.norm.logpdf(z).sum(-1)
    expected = -bce + prior - stats.norm.logpdf(z, mu, deviation).sum(-1)
    computed = model.log_importance_weights(*map(tf.constant, (bce, mu, log_var, drawn)))
    np.testing.assert_allclose(computed, expected, rtol=1e-9)


def test_adapted_initial_weights_decode_the_mean_image_and_have_no_log_var():
    vae = model.VAE((8, 6), 3)
    mean = np.linspace(0, 1, 784)
    before = vae.encode(images := np.random.default_rng(0).random((5, 784), np.float32))[0]
    vae.adapt_initial_weights(mean)
    decoded = tf.sigmoid(vae.decode(np.zeros((2, 3), np.float32))).numpy()
    # The other biases are 0, so z = 0 leaves only the last one. Its logits are finite.
    np.testing.assert_allclose(decoded, np.tile(np.clip(mean, 0.001, 0.999), (2, 1)), atol=1e-6)
    mu, log_var = vae.encode(images)
    np.testing.assert_array_equal(mu, before)
    np.testing.assert_array_equal(log_var, np.zeros((5, 3)))
