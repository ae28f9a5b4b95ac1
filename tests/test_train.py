"""train.py: a run against a plain one, its continuation, flags, and what is refused."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
import eval as eval_script
import eval_genresult
import model
import train as script
from support import noise, records
from support.analysis import fitted_prior, metrics
from support.errors import UserError
from support.storage import run_folder, weights, weights_file
from support.storage.run_folder import RunFolder
from support.training import augmentation, optimizer, schedule, steps, workers
from tests.helpers import (
    OFFLINE,
    ROOT,
    SMALL,
    STEPS,
    TAGS,
    arrays_of,
    files_in,
    folders,
    interrupted,
    last_line,
    points,
    run_script,
    same_bits,
    same_run,
    train,
)
from tests.training.test_config import CONFIG

TERMS = {"objective", *model.TERMS}
DIGITS = data.load("digits", limit=240)


def parsed(*argv):
    return script.parser().parse_args(list(argv))


def recipe(images, *argv):
    """The part of a configuration that depends on the number of images and on the run's length."""
    return script.default_recipe(parsed(*argv), images)


def test_batch_rate_and_distortion_follow_the_length_of_the_run():
    long = (100, 100, "random", "adamw", pytest.approx(0.003), 0.8, "last", 1.0)
    assert recipe(55_000) == long
    assert recipe(55_000, "--epoch", "1") == (
        1,
        50,
        "adapted",
        "nadamw",
        pytest.approx(0.004 * 100**0.25 / 2**0.5),
        0.0,
        "last",
        1.0,
    )
    assert recipe(55_000, "--epoch", "2")[1] == 50 and recipe(55_000, "--epoch", "3")[1] == 100
    assert recipe(55_000, "--epoch", "2").elastic == 0 < recipe(55_000, "--epoch", "3").elastic
    found = recipe(55_000, "--epoch", "16", "--batch", "225")
    rate = pytest.approx(0.003 * 2.5**0.5 * 1.5)
    assert found == (16, 225, "random", "adamw", rate, 0.8, "last", 1.0)
    assert recipe(55_000, "--epoch", "16", "--batch", "400").learning_rate == 0.009
    assert recipe(55_000, "--epoch", "1", "--batch", "500").learning_rate == 0.009


def test_flags_that_are_given_stay_as_they_are():
    argv = ["--epochs", "7", "--batch_size", "9", "--lr", "0.5", "--elastic", "0", "--keep", "last"]
    argv += ["--initial_weights", "adapted", "--optimizer", "nadamw"]
    for images in (55_000, 500):
        assert recipe(images, *argv) == (7, 9, "adapted", "nadamw", 0.5, 0.0, "last", 1.0)
    short = recipe(55_000, "--epoch", "2", "--optimizer", "adamw", "--initial_weights", "random")
    assert short.optimizer == "adamw" and short.initial_weights == "random"
    assert recipe(55_000, "--epoch", "2", "--elastic", "0.25").elastic == 0.25


def test_the_weight_of_the_kl_term_follows_the_objective_unless_it_is_given():
    l2 = ["--recon_loss", "l2"]
    assert recipe(55_000, *l2).beta == 0.05 and recipe(55_000, "--recon_loss", "bce").beta == 1.0
    assert recipe(55_000, *l2, "--beta", "1").beta == 1.0 == recipe(500, "--beta", "1").beta


def test_few_images_make_ten_thousand_steps_and_keep_the_best_epoch():
    found = recipe(9_999)
    assert found.epochs == 102 and found.batch_size == 100 and found.keep == "best"
    assert recipe(10_000)[:2] == (100, 100) and recipe(10_000).keep == "last"
    # A batch is at most a tenth of the images.
    assert recipe(240)[:2] == (10_000 // 10, 24)
    assert recipe(7)[:2] == (1429, 1)
    assert recipe(240, "--epoch", "5")[:2] == (5, 24)
    assert recipe(55_000, "--patience", "3").keep == "best"


def test_a_configuration_holds_every_flag_that_shapes_the_result():
    argv = ["--seed", "5", "--limit", "240", "--hidden_units", "9", "8", "--latent_dim", "3"]
    argv += ["--activation", "relu", "--epoch", "4", "--batch", "20", "--lr", "0.5"]
    argv += ["--schedule", "constant", "--warmup_epochs", "2", "--beta_2", "0.9"]
    argv += ["--optimizer", "nadamw", "--initial_weights", "adapted"]
    argv += ["--weight_decay", "0.25", "--recon_loss", "l2", "--beta", "3"]
    argv += ["--kl_warmup_epochs", "1.5", "--binarize", "dynamic", "--elbo_samples", "5"]
    argv += ["--no-residual"]
    argv += ["--elastic", "0.75", "--keep", "best", "--patience", "6"]
    assert script.resolve(parsed(*argv), DIGITS) == dataclasses.replace(
        CONFIG,
        architecture=records.Architecture((9, 8), 3, "relu"),
        training_images=240,
        seed=5,
        epochs=4,
        batch_size=20,
        limit=240,
        learning_rate=0.5,
        schedule="constant",
        warmup_epochs=2.0,
        initial_weights="adapted",
        optimizer="nadamw",
        beta_2=0.9,
        weight_decay=0.25,
        recon_loss="l2",
        beta=3.0,
        kl_warmup_epochs=1.5,
        binarize="dynamic",
        elbo_samples=5,
        elastic=0.75,
        keep="best",
        patience=6,
    )
    assert script.resolve(parsed("--load_weight_dir", "x"), DIGITS).warm_start


def test_more_steps_than_a_record_can_count_are_refused():
    """A save could not say which step it holds."""
    images = np.zeros((10_001, 784), np.uint8)
    dataset = DIGITS._replace(train=data.Split(images, None))
    args = parsed("--batch", "1", "--epoch", "99990")
    assert script.resolve(args, dataset).total_steps == 99_990 * 10_001
    args = parsed("--batch", "1", "--epoch", "100000")
    with pytest.raises(UserError, match="are 1,000,100,000 steps: expected at most 1,000,000,000"):
        script.resolve(args, dataset)


def test_the_defaults_are_those_of_the_published_figures():
    found = script.resolve(parsed(), DIGITS._replace(train=data.Split(np.zeros(55_000), None)))
    assert found == dataclasses.replace(
        CONFIG,
        architecture=records.Architecture((448, 224, 224, 224), 128, "silu", residual=True),
        training_images=55_000,
        seed=0,
        epochs=100,
        batch_size=100,
        learning_rate=pytest.approx(0.003),
    )


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--batch", "0"], "--batch"),
        (["--latent_dim", "-1"], "--latent_dim"),
        (["--latent_dim", "8193"], "--latent_dim"),
        (["--learning_rate", "nan"], "--learning_rate"),
        (["--epoch", "1.5"], "--epoch"),
        (["--elastic", "4.5"], "--elastic"),
        (["--elbo_samples", "2000000"], "--elbo_samples"),
        (["--latent", "5"], "did you mean --latent_dim?"),
        (["--num_epochs", "5"], "did you mean --epoch?"),
        (["--hidden_units", "512,256"], "separate the values with blanks, 512 256"),
        (["--weight_deacy", "5"], "did you mean --weight_decay?"),
        (["--warp", "1"], "did you mean --elastic?"),
        (["--strategy", "multi_worker"], "needs the environment variable TF_CONFIG"),
        (["--data_dir", "nowhere"], "--data_dir: nowhere does not exist"),
        (["--dataset", "digits", "--limit", "1298"], "--limit"),
        (["--dataset", "digits", "--limit", "240", "--batch", "500"], "only 240 training images"),
        (["--dataset", "digits", "--hidden_units", *["8"] * 17], "at most 16 layers, got 17"),
        (["--dataset", "digits", "--patience", "3", "--keep", "last"], "--patience cannot be"),
        (["--dataset", "digits", "--load_weight_dir", "none"], "--load_weight_dir: none does not"),
        (
            ["--dataset", "digits", "--load_weight_dir", "x", "--initial_weights", "adapted"],
            "--initial_weights cannot be combined with --load_weight_dir",
        ),
        (
            ["--dataset", "digits", "--epoch", "2", "--kl_warmup_epochs", "2.5"],
            "--kl_warmup_epochs 2.5: the KL term would not reach its full weight in --epoch 2",
        ),
        (["--dataset", "digits", "--transpose"], "--transpose is for images in files of your own"),
        (["--resume"], "an interrupted run continues when its command is repeated"),
    ],
)
def test_wrong_flags_cost_one_line_and_create_nothing(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    assert script.main(argv) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("train.py: error: ") and says in captured
    assert captured.count("\n") == 1 and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- parts of one step


def training_step(**changes):
    """A training step of a small run, and its configuration."""
    config = dataclasses.replace(CONFIG, training_images=240, **changes)
    keras.utils.set_random_seed(1)
    vae = model.VAE(*config.architecture)
    rate = schedule.LearningRate(
        config.learning_rate,
        config.schedule,
        config.steps_in(config.warmup_epochs),
        config.total_steps,
    )
    one = optimizer.build(
        config.optimizer, vae.trainable_variables, rate, config.weight_decay, config.beta_2
    )
    return script.TrainingStep(config, DIGITS.train.images, vae, one, rate), config


@pytest.mark.parametrize("start", records.INITIAL_WEIGHTS)
@pytest.mark.parametrize("name", records.OPTIMIZERS)
def test_a_run_begins_with_the_optimizer_and_the_bias_of_its_configuration(start, name):
    config = dataclasses.replace(CONFIG, optimizer=name, initial_weights=start)
    vae, one, _ = script.build(config, DIGITS.train.images, workers.Workers())
    assert type(one).__name__.lower() in name  # Nadam or AdamW
    expected = DIGITS.train.images.mean(axis=0) / 255 if start == "adapted" else np.full(784, 0.5)
    found = tf.sigmoid(vae.trainable_variables[-1]).numpy()
    np.testing.assert_allclose(found, np.maximum(expected, 0.001), rtol=1e-5)
    _, log_var = vae.encode(GREY[0])
    assert (np.abs(log_var).max() == 0) == (start == "adapted")


INDICES = tf.constant(np.arange(60).reshape(3, 20), tf.int32)
NUMBERS = tf.constant([6, 24, 47])
GREY = DIGITS.train.images[:60].reshape(3, 20, 784) / np.float32(255)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_noise_of_a_step_comes_in_antithetic_pairs(samples):
    step, config = training_step(elbo_samples=samples, elastic=0.0)
    images, drawn = step.inputs(INDICES, NUMBERS)
    np.testing.assert_allclose(images, GREY, rtol=1e-6)
    assert drawn.shape == (3, samples, 20, 2)
    half = -(-samples // 2)
    for number, noise_of_step in zip(NUMBERS, drawn.numpy(), strict=True):
        expected = noise.normal([half, 20, 2], config.seed, noise.TRAINING, number)
        np.testing.assert_array_equal(noise_of_step[:half], expected)
        np.testing.assert_array_equal(noise_of_step[half:], -noise_of_step[: samples - half])


def test_fewer_images_are_distorted_as_the_learning_rate_falls():
    """48 steps with 4 of warm-up: nearly all images at step 6, half at 24, hardly any at 47."""
    step, _ = training_step(elastic=0.8)
    shares = [float(step.distorted_share(tf.constant(number))) for number in (1, 4, 6, 24, 47)]
    np.testing.assert_allclose(shares, [0.5, 1, 42 / 44, 24 / 44, 1 / 44], rtol=1e-5)
    images, _ = step.inputs(INDICES, NUMBERS)
    expected = augmentation.elastic(tf.constant(GREY), 0.8, tf.constant(shares[2:]), 3, NUMBERS)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    distorted = (np.abs(images - GREY) > 1e-6).any(axis=-1).sum(axis=1)
    assert distorted[0] > 15 and 5 <= distorted[1] <= 16 and distorted[2] <= 3


def test_without_distortion_and_binarization_images_are_as_they_are():
    step, _ = training_step(elastic=0.0)
    np.testing.assert_allclose(step.inputs(INDICES, NUMBERS)[0], GREY, rtol=1e-6)


def test_training_on_bernoulli_samples_sees_new_ones_in_each_step_of_distorted_images():
    step, config = training_step(elastic=0.0, binarize="dynamic")
    same = tf.constant(np.tile(np.arange(20), (3, 1)), tf.int32)
    images, _ = step.inputs(same, NUMBERS)
    assert set(np.unique(images)) == {0, 1} and (images[0] != images[1]).numpy().any()
    expected = augmentation.bernoulli(tf.gather(GREY[0], same), config.seed, NUMBERS)
    np.testing.assert_array_equal(images, expected)
    both, _ = training_step(elastic=4.0, binarize="dynamic")
    found, _ = both.inputs(same, NUMBERS)
    assert set(np.unique(found)) == {0, 1} and (found[0] != images[0]).numpy().any()


@pytest.mark.parametrize("recon_loss, beta", [("bce", 1.0), ("bce", 0.5), ("l2", 2.0)])
def test_the_weight_of_the_kl_term_rises_to_beta_within_its_warm_up(recon_loss, beta):
    """In half an epoch of 12 steps: a sixth of beta at the first step, all from the sixth on."""
    step, _ = training_step(recon_loss=recon_loss, beta=beta)
    drawn = tf.zeros([2, 20, 2])
    for number, share in ((0, 1 / 6), (2, 0.5), (5, 1.0), (40, 1.0)):
        terms, gradients = step.gradients(tf.constant(GREY[0]), drawn, tf.constant(number))
        means = {name: float(tf.reduce_mean(values)) for name, values in terms.items()}
        expected = means[f"loss_{recon_loss}"] + share * beta * means["loss_KLD"]
        assert means["objective"] == pytest.approx(expected, rel=1e-5)
        assert len(gradients) == len(step.vae.trainable_variables)


def test_an_update_counts_a_step_and_decays_kernels_alone():
    step, config = training_step()
    before = [variable.numpy() for variable in step.vae.trainable_variables]
    step.vae.trainable_variables[1].assign(np.ones(6))
    before[1] = np.ones(6)
    assert int(step.done.numpy()) == 0
    step.update([tf.zeros(value.shape) for value in before])
    assert int(step.done.numpy()) == 1
    rate = 0.004 / 4  # at the first of four warm-up steps
    for variable, value in zip(step.vae.trainable_variables, before, strict=True):
        kept = 1 - rate * config.weight_decay if value.ndim == 2 else 1.0
        np.testing.assert_allclose(variable.numpy(), kept * value, rtol=1e-6)


# ------------------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of three epochs."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, "--epoch", "3") == 0
    return folder


def test_a_run_writes_curves_and_one_file(whole):
    trained, validated = points(whole / "log" / "train"), points(whole / "log" / "val")
    results = {name for name in validated if name.startswith("result/")}
    assert set(trained) == TERMS | {"learning_rate"}
    assert set(validated) - results == TERMS | {"active_units"}
    assert {*trained, *validated} - results == set(TAGS)
    assert [step for step, _ in trained["loss_bce"]] == list(range(5, 3 * STEPS + 1, 5))
    assert [step for step, _ in validated["RMSE"]] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert trained["loss_total"][-1][1] < trained["loss_total"][0][1]
    for part in (trained, validated):
        total, bce, kld = (np.array(part[f"loss_{n}"])[:, 1] for n in ("total", "bce", "KLD"))
        np.testing.assert_allclose(total, bce + kld, rtol=1e-5)
    names = {path.name for path in (whole / "weights").iterdir()}
    assert names == {"vae.keras", ".weights.lock"}
    record = weights.read_record(str(whole / "weights"))
    assert record.dataset.name == "digits" and record.epochs_done == 3
    assert record.step == 3 * STEPS and len(record.posterior.mu_std) == 4
    assert record.kept_epoch == 3
    assert "/" not in json.dumps(record.to_json())  # no paths


class Reference:
    """The run `whole`, written again in a plain way: NumPy and eager TensorFlow, step by step."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        self.vae = model.VAE((32, 16, 16), 4, "silu")
        self.variables = self.vae.trainable_variables
        self.first = [np.zeros(variable.shape) for variable in self.variables]
        self.second = [np.zeros(variable.shape) for variable in self.variables]
        self.peak = 0.003 * (100 / 3) ** 0.25 * (20 / 100) ** 0.5
        self.gradients = tf.function(self.loss_and_gradients, autograph=False)

    def rate(self, step):
        """The learning rate: up over 3 steps, a tenth of 36, then down to 0."""
        return self.peak * min(1, (step + 1) / 3, (36 - step) / 33)

    def images(self, indices, step):
        images = DIGITS.train.images[indices] / np.float32(255)
        uniform = noise.uniform([20, 33], 0, noise.ELASTIC, step)
        share = self.rate(step) / self.peak
        return augmentation.distorted(tf.constant(images), 1.6, share, uniform)

    def loss_and_gradients(self, images, drawn, beta):
        with tf.GradientTape() as tape:
            mu, log_var = self.vae.encode(images)
            bce = 0.0
            for one in (drawn, -drawn):
                logits = self.vae.decode(mu + tf.exp(log_var / 2) * one)
                crossed = tf.nn.softplus(logits) - images * logits
                bce += 0.5 * tf.reduce_mean(tf.reduce_sum(crossed, axis=1))
            kld = tf.exp(log_var) + mu**2 - 1 - log_var
            kld = 0.5 * tf.reduce_mean(tf.reduce_sum(kld, axis=1))
            objective = bce + beta * kld
        return {"objective": objective, "loss_bce": bce, "loss_KLD": kld}, tape.gradient(
            objective, self.variables
        )

    def step(self, indices, step):
        drawn = noise.normal([1, 20, 4], 0, noise.TRAINING, step)[0]
        beta = tf.constant(min(1, (step + 1) / 6), tf.float32)
        terms, gradients = self.gradients(self.images(indices, step), drawn, beta)
        self.adamw(gradients, self.rate(step), step + 1)
        return {name: float(value) for name, value in terms.items()}

    def adamw(self, gradients, rate, t):
        for i, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            gradient, value = gradient.numpy().astype(float), variable.numpy().astype(float)
            self.first[i] = 0.9 * self.first[i] + 0.1 * gradient
            self.second[i] = 0.99 * self.second[i] + 0.01 * gradient**2
            decay = 0.1 * value if value.ndim == 2 else 0.0
            correction = (1 - 0.99**t) ** 0.5 / (1 - 0.9**t)
            update = correction * self.first[i] / (self.second[i] ** 0.5 + 1e-7)
            variable.assign(value - rate * (update + decay))


def test_a_run_is_the_algorithm_written_plainly(whole):
    """If batches, distortion, noise, a warm-up, the schedule or AdamW is changed or left out, the
    losses of some step differ by more than the rounding of floats."""
    reference, losses = Reference(), []
    for epoch in range(3):
        order = np.random.default_rng([0, epoch]).permutation(240).reshape(12, 20)
        for indices in order:
            losses.append(reference.step(indices, len(losses)))
    curves = points(whole / "log" / "train")
    for name in ("objective", "loss_bce", "loss_KLD"):
        means = np.array([one[name] for one in losses[:35]]).reshape(7, 5).mean(axis=1)
        found = np.array(curves[name])[:, 1]
        np.testing.assert_allclose(found, means, rtol=2e-4, atol=2e-4, err_msg=name)
    rates = [step_rate for _, step_rate in curves["learning_rate"]]
    np.testing.assert_allclose(rates, [reference.rate(step) for step in range(4, 36, 5)], rtol=1e-5)
    trained, _ = weights.load(str(whole / "weights"))
    for variable, other in zip(trained.trainable_variables, reference.variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-2, atol=2e-4)


def test_validation_is_on_the_validation_images_with_the_weights_of_the_epoch(whole):
    """Recomputed from the finished weights, in NumPy."""
    vae, _ = weights.load(str(whole / "weights"))
    x = DIGITS.validation.images / np.float32(255)
    mu, log_var = (part.numpy() for part in vae.encode(x))
    z = mu + np.exp(log_var / 2) * noise.normal(mu.shape, 0, noise.EVALUATION, 0)
    logits = vae.decode(z).numpy().astype(float)
    bce = (np.logaddexp(0, logits) - x * logits).sum(1).mean()
    kld = 0.5 * (np.exp(log_var) + mu**2 - 1 - log_var).sum(1).mean()
    rmse = np.sqrt(np.mean((1 / (1 + np.exp(-logits)) - x) ** 2, axis=1)).mean()
    last = {name: curve[-1][1] for name, curve in points(whole / "log" / "val").items()}
    expected = {"loss_bce": bce, "loss_KLD": kld, "loss_total": bce + kld, "RMSE": rmse}
    for name, value in (expected | {"objective": bce + kld}).items():
        assert last[name] == pytest.approx(value, rel=1e-4), name
    assert last["active_units"] == np.sum(mu.var(axis=0) > 0.01)


def test_a_run_ends_with_what_eval_would_say_of_its_validation_images(tmp_path, capsys):
    """Recomputed from the finished weights, by the functions of eval.py."""
    assert train(tmp_path, "--epoch", "3", "--seed", "2") == 0
    said = capsys.readouterr().out
    found = weights.read(str(tmp_path / "weights"))
    trained = eval_script.TrainedModel(found, seed=2, batch=7)
    figures = trained.evaluate(DIGITS.validation.images)
    correct = figures.predicted_label == DIGITS.validation.labels
    figures.values["prior_accuracy"] = correct.astype(float)
    assert trained.classifies and "200 VALIDATION images of digits, weights of epoch 3, " in said
    means, errors = figures.means(), figures.standard_errors()
    rows = {words[0]: words for line in said.splitlines() if (words := line.split())}
    results = points(tmp_path / "log" / "val")
    for name in (*model.TERMS, "RMSE_mean", "loss_total_fitted", "prior_accuracy"):
        assert float(rows[name][1]) == pytest.approx(means[name], abs=2e-4)
        assert float(rows[name][2]) == pytest.approx(errors[name], abs=2e-4)
        ((step, value),) = results[f"result/{name}"]
        assert step == 3 * STEPS + 1 and value == pytest.approx(means[name], rel=1e-5)
    active = int((figures.mu.var(axis=0) > 0.01).sum())
    assert f"active units {active} of 4" in " ".join(said.split())
    assert results["result/active_units"] == [(3 * STEPS + 1, active)]


def test_the_record_and_the_prior_of_a_finished_run_fit_its_weights(whole):
    """The posterior and the prior of the training images, recomputed from what was saved."""
    vae, record = weights.load(str(whole / "weights"))
    encoded = metrics.encode(vae, DIGITS.train.images)
    assert metrics.posterior(*encoded) == record.posterior
    validation = metrics.encode(vae, DIGITS.validation.images)
    arrays, prior_record = fitted_prior.fit(encoded, DIGITS.train.labels, validation, 0)
    assert record.prior == prior_record and record.prior.gain > 0
    for array, saved in zip(arrays, weights.read(str(whole / "weights")).prior, strict=True):
        np.testing.assert_array_equal(array, saved)


def test_the_same_validation_images_are_pictured_at_the_first_and_the_last_epoch(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(whole / "log" / "val"))
    accumulator.Reload()
    names = {"others/reconstructions": 8, "others/prior_samples": 4}
    assert set(accumulator.Tags()["images"]) == set(names)
    for name, rows in names.items():
        events = accumulator.Images(name)
        assert [event.step for event in events] == [STEPS, 3 * STEPS]
        first, last = (
            tf.io.decode_png(event.encoded_image_string).numpy()[..., 0] for event in events
        )
        side = first.shape[1] // 10
        assert first.shape == (rows * side, 10 * side) and (first != last).any()
        if name == "others/reconstructions":
            for picture in (first, last):
                images = 255 - DIGITS.validation.images[:10].reshape(10, 28, 28)
                for column in range(10):
                    left = column * side
                    np.testing.assert_array_equal(picture[:28, left : left + 28], images[column])


# ------------------------------------------------------------------------------------ interrupted


@pytest.mark.parametrize(
    "signum, code, moments",
    [
        (signal.SIGINT, 130, [(3, 17)]),
        pytest.param(signal.SIGTERM, 143, [(5, 5), (3, 17)], marks=pytest.mark.slow),
    ],
)
def test_interrupted_anywhere_it_continues_to_the_same_bits(
    whole, tmp_path, capsys, signum, code, moments
):
    """A signal ends it after some steps, each time with another number of steps per call."""
    for steps_per_call, stop in moments:
        with interrupted(stop, steps_per_call, signum):
            assert train(tmp_path, "--epoch", "3") == code
        line = last_line(capsys.readouterr().err)
        assert line.startswith("train.py: interrupted; saved in")
        assert "repeat the command to continue the run" in line
    assert train(tmp_path, "--epoch", "3") == 0
    assert "Continuing" in capsys.readouterr().out
    same_run(whole, tmp_path)


def test_points_and_saves_past_the_newest_good_save_are_replaced(whole, tmp_path, capsys):
    """As after SIGKILL, and with a damaged newest save: the one before it is used."""
    with interrupted(30, 6):
        assert train(tmp_path, "--epoch", "3", "--save_every", "0") == 143
    assert weights_file.saved_steps(str(tmp_path / "weights")) == [24, 30]  # the newest two
    newest = tmp_path / "weights" / "checkpoint" / "step-000000030.keras"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    assert train(tmp_path, "--epoch", "3") == 0
    captured = capsys.readouterr()
    assert "step-000000030.keras" in captured.err
    assert captured.err.count("the previous save is used instead") == 1
    assert "Continuing at step 24, after 2 of 3 epochs." in captured.out
    same_run(whole, tmp_path)


def without_newer_settings(record):
    """The record as version 1.0 would have written it."""
    newer = run_folder.EARLIER_SETTINGS.keys()
    kept = {name: value for name, value in record.training.items() if name not in newer}
    return dataclasses.replace(record, training=kept)


def test_a_run_of_version_1_continues_by_the_command_that_began_it(tmp_path, monkeypatch):
    """Which then meant a beta of 1, and no residual layers; today it means something else."""
    command = ["--epoch", "2", "--recon_loss", "l2"]
    as_then = ["--beta", "1", "--no-residual", "--optimizer", "adamw", "--initial_weights"]
    with interrupted(7, 7):
        assert train(tmp_path, *command, *as_then, "random", "--lr", "0.004") == 143
    assert train(tmp_path, *command, "--lr", "0.004") == 2  # a run of today's version
    read = weights.read_record
    monkeypatch.setattr(weights, "read_record", lambda path: without_newer_settings(read(path)))
    assert train(tmp_path, *command, "--beta", "0.5", "--lr", "0.004") == 2
    assert train(tmp_path, *command, "--lr", "0.004") == 0
    assert read(str(tmp_path / "weights")).training["beta"] == 1.0
    args = parsed(*SMALL, *command, "--overwrite", *folders(tmp_path))
    assert script.configuration(args, DIGITS) == script.resolve(args, DIGITS)


@pytest.mark.parametrize(
    "flags, residual",
    [
        ("--hidden_units 8 8", True),
        ("--hidden_units 8 8 --no-residual", False),
        # Recorded as what it is: no layer can be residual.
        ("--hidden_units 8 7 8", False),
    ],
)
def test_layers_are_residual_unless_that_is_switched_off(flags, residual):
    assert script.resolve(parsed(*flags.split()), DIGITS).architecture.residual is residual


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [["--binarize", "dynamic"], ["--recon_loss", "l2"], ["--elbo_samples", "3"]]
)
def test_every_objective_continues_to_the_same_bits(tmp_path, objective):
    argv = ["--epoch", "2", *objective]
    assert train(tmp_path / "whole", *argv) == 0
    with interrupted(7, 7):
        assert train(tmp_path / "parts", *argv) == 143
    assert train(tmp_path / "parts", *argv) == 0
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_signal_while_the_prior_is_fitted_leaves_a_run_to_finish(
    whole, tmp_path, monkeypatch, capsys
):
    """As if killed between the last save and vae.keras."""
    fit = fitted_prior.fit

    def signalled(*args, before_each_class):
        def before():
            os.kill(os.getpid(), signal.SIGTERM)
            before_each_class()

        return fit(*args, before_each_class=before)

    with monkeypatch.context() as patch:
        patch.setattr(fitted_prior, "fit", signalled)
        assert train(tmp_path, "--epoch", "3") == 143
    assert not (tmp_path / "weights" / "vae.keras").exists()
    capsys.readouterr()
    assert train(tmp_path, "--epoch", "3") == 0
    assert "Epoch" not in capsys.readouterr().out.split("Continuing at step 36")[1]
    same_run(whole, tmp_path)


# ----------------------------------------------------------------------------------- other endings


@pytest.fixture
def calls(monkeypatch):
    """The arguments from which the size of a call was computed, and the shape of each call."""
    asked, sizes, call = [], [], steps.CompiledSteps.__call__

    def most(vae, batch_size, samples):
        asked.append((batch_size, samples))
        return 7

    def counted(self, indices):
        sizes.append(indices.shape)
        return call(self, indices)

    monkeypatch.setattr(steps, "most_steps_per_call", most)
    monkeypatch.setattr(steps.CompiledSteps, "__call__", counted)
    return asked, sizes


def test_the_objective_is_what_the_flags_say_and_a_run_may_have_no_prior(tmp_path, capsys, calls):
    """With such a large weight of the KL term, no latent dimension is active."""
    flags = ["--recon_loss", "l2", "--beta", "1000", "--log_every", "1", "--elbo_samples", "3"]
    assert train(tmp_path, "--epoch", "1", *flags) == 0
    # The first call compiles; then the epoch's twelve steps come in calls of at most seven.
    assert calls == ([(20, 3)], [(0, 20), (7, 20), (5, 20)])
    risen = np.minimum(1, np.arange(1, STEPS + 1) / (STEPS // 2))
    for part, beta in (("train", 1000 * risen), ("val", 1000)):
        found = {name: np.array(c)[:, 1] for name, c in points(tmp_path / "log" / part).items()}
        expected = found["loss_l2"] + beta * found["loss_KLD"]
        np.testing.assert_allclose(found["objective"], expected, rtol=1e-5)
    read = weights.read(str(tmp_path / "weights"))
    assert "no latent dimension is active" in read.record.prior.reason and read.prior is None
    said = capsys.readouterr().out
    assert "There is no fitted prior: no latent dimension is active." in said
    assert said.count("WARNING: the posterior has collapsed") == 1 and "After only 12 steps" in said
    argv = ["--load_weight_dir", str(tmp_path / "weights"), "--output_dir", str(tmp_path / "out")]
    for other in (eval_script, eval_genresult):
        assert other.main(argv) == 0
        assert "WARNING: the posterior has collapsed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    argv = ["--epoch", "3", "--learning_rate", "1e6", "--schedule", "constant"]
    assert train(tmp_path, *argv, "--warmup_epochs", "0", "--elastic", "0") == 3
    line = last_line(capsys.readouterr().err)
    assert "the loss became NaN or infinite at step" in line
    assert "(the save of step 0 is kept in" in line
    assert weights_file.saved_steps(str(tmp_path / "weights")) == [0]


def test_finished_says_so_and_changes_nothing(trained, capsys):
    before = files_in(trained.parent)
    assert train(trained.parent, "--epoch", "2") == 0
    said = capsys.readouterr().out
    assert "nothing to do" in said and f"eval.py --load_weight_dir {trained}" in said
    assert f"tensorboard --logdir {trained.parent / 'log'}" in said
    assert files_in(trained.parent) == before


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--epoch", "2", "--latent_dim", "5"], "its latent_dim is 4, but this run has 5"),
        (["--epoch", "2", "--seed", "9"], "its seed is 0, but this run has 9"),
        (["--epoch", "2", "--limit", "100"], "its limit is 240, but this run has 100"),
        (["--epoch", "2", "--beta_2", "0.999"], "its beta_2 is 0.99, but this run has 0.999"),
        (["--epoch", "1"], "its epochs is 2, but this run has 1"),
        (["--epoch", "4", "--beta", "2"], "its epochs is 2, but this run has 4"),
    ],
)
def test_another_configuration_is_refused(trained, capsys, argv, says):
    before = files_in(trained.parent)
    assert train(trained.parent, *argv) == 2
    line = last_line(capsys.readouterr().err)
    assert line.startswith("train.py: error: ") and says in line
    for way_out in ("--save_weight_dir", "--overwrite", "--load_weight_dir"):
        assert way_out in line
    assert files_in(trained.parent) == before


def test_a_finished_run_that_is_to_be_longer_continues_by_the_command_that_is_said(
    trained, tmp_path, monkeypatch, capsys
):
    """The command is run as it was printed, from a folder of its own."""
    shutil.copytree(trained.parent, tmp_path / "my run")
    (tmp_path / "my run" / "log_2").mkdir()
    monkeypatch.chdir(tmp_path)
    before = files_in(tmp_path)
    argv = [*SMALL, "--save_weight_dir", "my run/weights", "--log_dir", "my run/log/"]
    assert script.main([*argv, "--epochs", "5"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "its epochs is 2, but this run has 5. A finished run is not made longer" in line
    assert files_in(tmp_path) == before
    said = shlex.split(line.partition("a new schedule: ")[2])
    assert said[:2] == ["python", os.path.join(ROOT, "train.py")]
    assert script.main(said[2:]) == 0
    record = weights.read_record("my run/weights_2")
    source = weights.read_record("my run/weights")
    assert record.source == records.Source(source.run_id, source.step)
    assert record.epochs_done == 3 and record.training["batch_size"] == 20
    assert (tmp_path / "my run" / "log_3" / "owner.json").exists()


@pytest.mark.parametrize(
    "argv, longer",
    [([], True), (["--overwrite"], True), (["--keep", "last"], False), (["--seed", "1"], False)],
)
def test_what_follows_from_the_length_of_a_run_may_differ_in_a_longer_one(
    trained, tmp_path, monkeypatch, argv, longer
):
    """Two epochs have other defaults than five; what was typed must be as it was."""
    small = ["--dataset", "digits", "--limit", "240"]
    first = script.resolve(parsed(*small, "--epoch", "2"), DIGITS)
    args = parsed(*small, "--epoch", "5", *argv)
    second = script.resolve(args, DIGITS)
    assert first.elastic != second.elastic and first.learning_rate != second.learning_rate
    identity = first.identity(DIGITS, ())
    record = dataclasses.replace(
        weights.read_record(str(trained)),
        training=dict(identity.training),
        dataset=identity.dataset,
        architecture=first.architecture,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "read_record", lambda _: record)
    hint = script.longer_run_hint(args, second.identity(DIGITS, ()), "w", "l")
    assert bool(hint) == longer and ("--epoch 3 " in hint) == longer
    assert "--overwrite" not in hint
    # A run that is not finished can only be finished as it is.
    record = dataclasses.replace(record, posterior=None)
    assert script.longer_run_hint(args, second.identity(DIGITS, ()), "w", "l") == ""


def test_a_run_on_some_digits_continues_and_is_not_taken_for_another(trained, tmp_path, capsys):
    """It sees only their images, resumes to the same bits, and is recognized by its digits."""
    some = ["--epoch", "2", "--digits", "8", "1", "5"]
    assert train(tmp_path / "whole", *some) == 0
    assert "only those of 1 5 8 (--digits)." in capsys.readouterr().out
    with interrupted(8, 4):
        assert train(tmp_path / "parts", *some) == 143
    assert train(tmp_path / "parts", *some) == 0
    same_run(tmp_path / "whole", tmp_path / "parts")
    found = weights.read(str(tmp_path / "whole" / "weights"))
    assert found.record.dataset.classes == (1, 5, 8)
    assert set(found.prior.labels.tolist()) <= {1, 5, 8}
    # In another order they are the same run; others, and all, are another one.
    capsys.readouterr()
    assert train(tmp_path / "whole", "--epoch", "2", "--digit", "1", "5", "8", "8") == 0
    assert "nothing to do" in capsys.readouterr().out
    for argv, says in ((["--digits", "1", "5"], "1 5"), ([], "all")):
        assert train(tmp_path / "whole", "--epoch", "2", "--limit", "200", *argv) == 2
        line = last_line(capsys.readouterr().err)
        assert f"its digits is 1 5 8, but this run has {says}" in line
    assert train(trained.parent, "--epoch", "2", *some[2:]) == 2
    assert "its digits is all, but this run has 1 5 8" in last_line(capsys.readouterr().err)


def test_a_run_on_some_digits_is_one_on_a_data_set_that_has_no_others(tmp_path):
    """The same bits as from a file with only their images."""
    digits = data.load("digits")
    kept = [np.isin(split.labels, (2, 4)) for split in digits[2:5]]
    parts = {}
    for name, split, rows in zip(("train", "val", "test"), digits[2:5], kept, strict=True):
        parts |= {f"x_{name}": split.images[rows], f"y_{name}": split.labels[rows]}
    np.savez(tmp_path / "few.npz", **parts)
    argv = ["--epoch", "1", "--limit", "120"]
    assert train(tmp_path / "a", *argv, "--digits", "2", "4") == 0
    own = ["--dataset", "custom", "--data_dir", str(tmp_path / "few.npz")]
    assert script.main([*SMALL[2:], *own, *folders(tmp_path / "b"), *argv]) == 0
    same_bits(tmp_path / "a" / "weights", tmp_path / "b" / "weights")


def test_digits_that_do_not_exist_cost_one_line(tmp_path, capsys):
    assert train(tmp_path, "--digits", "3", "11") == 2
    said = capsys.readouterr().err
    assert "has no training images of class 11, which --digits asks for: choose from 0" in said
    assert said.startswith("train.py: error: ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_overwrite_removes_only_our_files(copy, trained, capsys):
    shutil.copytree(trained.parent / "log", copy.parent / "log")
    (copy / "notes.txt").write_text("mine")
    (copy.parent / "log" / "train" / "mine.txt").write_text("mine")
    argv = [*SMALL, "--save_weight_dir", str(copy), "--log_dir", str(copy.parent / "log")]
    argv += ["--epoch", "1", "--seed", "3"]
    assert script.main(argv) == 2
    assert "its seed is 0, but this run has 3" in last_line(capsys.readouterr().err)
    assert script.main([*argv, "--overwrite"]) == 0
    assert (copy / "notes.txt").read_text() == "mine"
    assert (copy.parent / "log" / "train" / "mine.txt").read_text() == "mine"
    assert weights.read_record(str(copy)).training["seed"] == 3
    curve = points(copy.parent / "log" / "val")["loss_total"]
    assert [step for step, _ in curve] == [STEPS]


def test_a_log_folder_belongs_to_one_run(trained, tmp_path, capsys):
    before = files_in(trained.parent / "log")
    argv = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(trained.parent / "log")]
    assert script.main([*SMALL, *argv, "--epoch", "1"]) == 2
    assert "--log_dir" in last_line(capsys.readouterr().err)
    assert files_in(trained.parent / "log") == before and not (tmp_path / "w").exists()
    foreign = tmp_path / "log" / "train" / "events.out.tfevents.1.mine"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    for overwrite in ([], ["--overwrite"]):
        assert train(tmp_path, "--epoch", "1", *overwrite) == 2
        line = last_line(capsys.readouterr().err)
        assert "event files of an unknown run, which --overwrite does not remove: choose " in line
        # The way out of other conflicts is none here.
        assert "use --overwrite" not in line
    assert foreign.read_text() == "mine"


def test_a_second_run_on_the_same_folders_is_refused(copy, tmp_path, capsys):
    for folder, log in ((copy, tmp_path / "l"), (tmp_path / "w", tmp_path / "log")):
        identity = CONFIG.identity(DIGITS, given=())
        with RunFolder(str(folder), str(log), identity, overwrite=True):
            other = tmp_path / "other"
            pair = (folder, other) if folder == copy else (other, log)
            argv = ["--save_weight_dir", str(pair[0]), "--log_dir", str(pair[1])]
            assert script.main([*SMALL, *argv, "--epoch", "3", "--overwrite"]) == 2
            assert "in use by another run" in last_line(capsys.readouterr().err)
    assert weights.read_record(str(copy)).epochs_done == 2


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    """A file is in place of a folder that should be created, which is refused even for root."""
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "out")
    for flag in ("--save_weight_dir", "--log_dir"):
        argv = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
        assert script.main([*SMALL, *argv, flag, place]) == 2
        assert f"{place} cannot be written" in last_line(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_new_run_starts_from_given_weights(trained, tmp_path, capsys):
    """With a learning rate of almost 0, it ends with the weights it began with."""
    bare = ["--dataset", "digits", "--limit", "240", "--batch", "20", "--epoch", "1"]
    bare += ["--load_weight_dir", str(tmp_path / "source"), "--learning_rate", "1e-12"]
    shutil.copytree(trained, tmp_path / "source")
    assert script.main([*bare, *folders(tmp_path), "--latent_dim", "5"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "--load_weight_dir: " in line and "its latent_dim is 4, but this run has 5" in line
    inside = ["--save_weight_dir", str(tmp_path / "source"), "--overwrite"]
    assert script.main([*bare, *inside]) == 2
    assert "the folder of the new run" in last_line(capsys.readouterr().err)
    assert script.main([*bare, *folders(tmp_path)]) == 0
    # A run that exists already never reads them again.
    shutil.rmtree(tmp_path / "source")
    assert script.main([*bare, *folders(tmp_path)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for value, expected in zip(arrays_of(tmp_path / "weights"), arrays_of(trained), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-9)
    record, source = (weights.read_record(str(f)) for f in (tmp_path / "weights", trained))
    assert record.source == records.Source(source.run_id, source.step)
    assert record.run_id != source.run_id
    cold = [flag for flag in bare if flag not in ("--load_weight_dir", str(tmp_path / "source"))]
    network = ["--hidden_units", "32", "16", "16", "--latent_dim", "4"]
    assert script.main([*cold, *folders(tmp_path), *network]) == 2
    assert "its warm_start is True, but this run has False" in capsys.readouterr().err


def test_a_fallback_has_folders_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    argv = [flag for flag in SMALL if flag not in ("--dataset", "digits")]
    assert script.main([*argv, "--epoch", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("THIS IS NOT MNIST") == 2
    assert captured.out.count("Epoch 1/1") == 1 and "images/s" in captured.out
    left = {path.name for path in tmp_path.iterdir()} - {"keras"}
    assert left == {"weight_train_digits", "log_digits"}


def test_mnist_never_falls_back(tmp_path):
    """Seen in a separate process."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    run = run_script("train.py", "--dataset", "mnist", cwd=tmp_path, **environment)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("train.py: error: --dataset mnist")
    assert {path.name for path in tmp_path.iterdir()} <= {"keras"}


@pytest.mark.slow
def test_the_whole_way_on_the_digits_of_scikit_learn(tmp_path):
    """Offline and without MNIST: train, evaluate and generate, each in its own process."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    trained = run_script("train.py", "--epoch", "2", cwd=tmp_path, **environment)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("THIS IS NOT MNIST") == 2  # at the start and with the results
    lines = [line for line in trained.stdout.splitlines() if line.startswith("Epoch ")]
    assert len(lines) == 2 and "images/s" in lines[0]
    assert trained.stderr == ""
    folder = ["--load_weight_dir", "weight_train_digits"]
    evaluated = run_script("eval.py", *folder, cwd=tmp_path, **environment)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "300 test images of digits" in evaluated.stdout and evaluated.stderr == ""
    generated = run_script("eval_genresult.py", *folder, cwd=tmp_path)
    assert generated.returncode == 0 and generated.stderr == ""
    expected = {"metrics.json", "reconstructions.png", "generated.png", "generated.npz"}
    assert expected <= {path.name for path in (tmp_path / "result").iterdir()}


def test_help_shows_one_default_of_every_flag():
    shown = script.parser().format_help()
    flags = re.split(r"\n  (?=-)", shown)[1:]
    assert len(flags) > 30
    for text in flags:
        assert text.count("(default") == (0 if text.startswith("-h, --help") else 1), text
    assert "(default: on)" in shown and "(default: True)" not in shown


@pytest.mark.parametrize("flag", ["--transpose", "--no-transpose"])
def test_images_that_were_turned_are_turned_in_the_next_command(flag, monkeypatch):
    folder = RunFolder("w", "log", CONFIG.identity(DIGITS, given=()))
    command = script.next_commands(parsed("--data_dir", "d", flag), folder).splitlines()[0]
    assert command.endswith(f"eval.py --load_weight_dir w --data_dir d {flag}")


def test_a_path_that_needs_quotes_is_quoted_in_the_next_commands(monkeypatch):
    args = parsed("--data_dir", "my data", "--save_weight_dir", "w")
    folder = RunFolder("my weights", "log", CONFIG.identity(DIGITS, given=()))
    monkeypatch.chdir(ROOT)
    commands = script.next_commands(args, folder).splitlines()
    assert commands[0] == "Next: python eval.py --load_weight_dir 'my weights' --data_dir 'my data'"
    assert commands[1].strip() == "python eval_genresult.py --load_weight_dir 'my weights'"
    assert commands[2].strip() == "tensorboard --logdir log"
