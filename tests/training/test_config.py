"""support/training/config.py: what follows from the settings of a run, and what is recorded."""

import dataclasses

import numpy as np
import pytest

import model
from support.datasets.types import Dataset
from support.records import Architecture, DatasetRecord
from support.storage.run_folder import Identity
from support.training.config import Config, dataset_record

CONFIG = Config(
    architecture=Architecture((6, 5), 2, "tanh"),
    training_images=245,
    seed=3,
    epochs=4,
    batch_size=20,
    limit=None,
    learning_rate=0.004,
    schedule="linear",
    warmup_epochs=1.0,
    initial_weights="random",
    optimizer="adamw",
    beta_2=0.99,
    weight_decay=0.1,
    recon_loss="bce",
    beta=1.0,
    kl_warmup_epochs=0.5,
    binarize="none",
    elbo_samples=2,
    elastic=0.8,
    keep="last",
    patience=None,
    warm_start=False,
)
DATASET = Dataset("custom", "beef", None, None, None, class_names=("cat", "dog"))


def test_an_epoch_has_whole_batches_only():
    assert CONFIG.steps_per_epoch == 12 and CONFIG.total_steps == 48
    assert dataclasses.replace(CONFIG, batch_size=245).total_steps == 4


@pytest.mark.parametrize("epochs, steps", [(0, 0), (0.5, 6), (1.0, 12), (0.04, 0), (0.05, 1)])
def test_epochs_are_counted_in_steps(epochs, steps):
    assert CONFIG.steps_in(epochs) == steps


def test_every_setting_is_recorded_but_for_what_is_recorded_elsewhere():
    settings = CONFIG.settings()
    names = {field.name for field in dataclasses.fields(Config)}
    assert settings.keys() == names - {"architecture", "training_images"}
    assert settings["epochs"] == 4 and settings["limit"] is None and settings["elastic"] == 0.8


def test_a_run_is_identified_by_its_data_its_network_and_its_settings():
    record = DatasetRecord("custom", "beef", ("cat", "dog"))
    assert dataset_record(DATASET) == record
    network = {
        "hidden_units": (6, 5),
        "latent_dim": 2,
        "activation": "tanh",
        "residual": False,
    }
    expected = Identity(record, network, CONFIG.settings())
    assert CONFIG.identity(DATASET, given=()) == expected
    some = DATASET._replace(classes=(0, 2))
    assert CONFIG.identity(some, given=()).settings()["digits"] == "cat 2"
    assert CONFIG.identity(DATASET, given=()).settings()["digits"] == "all"


def test_of_the_network_of_given_weights_only_what_was_typed_must_agree():
    warm = dataclasses.replace(CONFIG, warm_start=True)
    assert warm.identity(DATASET, given={"epochs"}).architecture == {}
    assert warm.identity(DATASET, given={"latent_dim"}).architecture == {"latent_dim": 2}


def test_what_follows_from_the_flags_is_said_and_what_was_not_typed_has_a_star():
    assert CONFIG.describe(given={"epochs", "learning_rate"}) == [
        "Network 784-6-5-2-5-6-784, tanh: 10,308 weights.",
        "Objective: loss_bce + beta * loss_KLD with beta 1*, 2 samples of z per image.",
        "Recipe: 48 steps (4 epochs of 12), batch 20*, adamw* with learning rate 0.004, random* "
        "initial weights, elastic distortion of up to 0.8 pixels*, keeping the last weights*.",
        "* chosen for this data set, length and objective; a flag overrides it (--help).",
    ]
    chosen = {"beta", "epochs", "batch_size", "optimizer", "learning_rate", "elastic", "keep"}
    warm = dataclasses.replace(CONFIG, warm_start=True).describe(chosen)
    assert len(warm) == 3 and ", starting from given weights, elastic" in warm[2]
    assert warm[2].endswith("keeping the last weights.")
    other = dataclasses.replace(
        CONFIG, elastic=0.0, keep="best", recon_loss="l2", beta=0.05, binarize="dynamic"
    )
    residual = Architecture((6, 6), 2, "tanh", residual=True)
    other = dataclasses.replace(other, architecture=residual, elbo_samples=1)
    text = " ".join(other.describe(given={"beta", "elastic"}))
    assert text.startswith("Network 784-6-6-2-6-6-784, tanh with residual layers: 10,")
    assert "loss_l2 + beta * loss_KLD with beta 0.05, 1 sample of z per image, on Bern" in text
    assert ", no elastic distortion, keeping the weights of the best epoch*." in text
    assert "(4* epochs of 12)" in text and "learning rate 0.004*" in text


@pytest.mark.parametrize("hidden_units, latent_dim", [((6, 5), 2), ((9,), 1), ((4, 8, 3), 7)])
def test_the_number_of_weights_is_that_of_the_model(hidden_units, latent_dim):
    vae = model.VAE(hidden_units, latent_dim)
    expected = sum(int(np.prod(variable.shape)) for variable in vae.trainable_variables)
    assert Architecture(hidden_units, latent_dim, "silu").weight_count(784) == expected
