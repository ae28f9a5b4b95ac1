"""The configuration of a run: its flags, with every default filled in."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from support import noise, records
from support.datasets.types import PIXELS, Dataset
from support.storage.run_folder import Identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that affects the result of a run, apart from the images themselves.

    Attributes that are not described here mean the same as the flag of that name in train.py. All
    but the first two are the `training` settings of `run.json`.

    Attributes:
        architecture: the network.
        training_images: the number of training images.
        warm_start: whether the run starts from given weights.
    """

    architecture: records.Architecture
    training_images: int
    seed: int
    epochs: int
    batch_size: int
    limit: int | None
    initial_weights: str
    optimizer: str
    learning_rate: float
    schedule: str
    warmup_epochs: float
    beta_2: float
    weight_decay: float
    recon_loss: str
    beta: float
    kl_warmup_epochs: float
    binarize: str
    elbo_samples: int
    elastic: float
    keep: str
    patience: int | None
    warm_start: bool

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in the training images."""
        return self.training_images // self.batch_size

    @property
    def total_steps(self) -> int:
        """The number of steps of the run."""
        return self.epochs * self.steps_per_epoch

    def steps_in(self, epochs: float) -> int:
        """Returns the number of steps in `epochs` epochs, which may be a fraction."""
        return round(epochs * self.steps_per_epoch)

    def describe(self, given: Collection[str]) -> list[str]:
        """Returns a few sentences about the network, the objective and the recipe.

        Args:
            given: names of the flags that the user typed. Settings that are not among them and
                follow from others are marked with a star, which the last sentence explains.
        """
        hidden_units, _, activation, residual = self.architecture
        sizes = [PIXELS, *hidden_units, *self.architecture.decoder_sizes(PIXELS)]
        network = f"Network {'-'.join(map(str, sizes))}, {activation}"
        if residual:
            network += " with residual layers"

        chosen = []

        def star(name: str) -> str:
            if name in given:
                return ""
            chosen.append(name)
            return "*"

        images = ", on Bernoulli samples of the images" if self.trains_on_binary_images else ""
        samples = "1 sample" if self.elbo_samples == 1 else f"{self.elbo_samples} samples"
        distortion = "no elastic distortion"
        if self.elastic:
            distortion = f"elastic distortion of up to {self.elastic:g} pixels"
        if self.warm_start:
            initial = "starting from given weights"
        else:
            initial = f"{self.initial_weights}{star('initial_weights')} initial weights"
        kept = "the weights of the best epoch" if self.keep == "best" else "the last weights"
        sentences = [
            f"{network}: {self.architecture.weight_count(PIXELS):,} weights.",
            f"Objective: loss_{self.recon_loss} + beta * loss_KLD with beta "
            f"{self.beta:g}{star('beta')}, {samples} of z per image{images}.",
            f"Recipe: {self.total_steps:,} steps ({self.epochs}{star('epochs')} epochs of "
            f"{self.steps_per_epoch:,}), batch {self.batch_size}{star('batch_size')}, "
            f"{self.optimizer}{star('optimizer')} with learning rate "
            f"{self.learning_rate:.3g}{star('learning_rate')}, "
            f"{initial}, {distortion}{star('elastic')}, keeping {kept}{star('keep')}.",
        ]
        if chosen:
            sentences.append(
                "* chosen for this data set, length and objective; a flag overrides it (--help)."
            )
        return sentences

    @property
    def trains_on_binary_images(self) -> bool:
        """Whether the model is trained on Bernoulli samples of the images."""
        return self.binarize == "dynamic"

    def evaluation_images(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns images, uint8 (n, 784), as the model is evaluated on them."""
        return noise.evaluation_images(images, self.trains_on_binary_images, self.seed)

    def settings(self) -> dict[str, records.Setting]:
        """Returns the `training` settings of `run.json`, by name."""
        values = dataclasses.asdict(self)
        del values["architecture"], values["training_images"]
        return values

    def identity(self, dataset: Dataset, given: Collection[str]) -> Identity:
        """Returns what a run in a folder must match to be continued.

        Args:
            dataset: the data set to train on.
            given: names of the flags that the user typed. A run that starts from given weights has
                their network, which only has to match the flags that were typed.
        """
        network: dict[str, Any] = self.architecture._asdict()
        if self.warm_start:
            network = {name: value for name, value in network.items() if name in given}
        return Identity(dataset_record(dataset), network, self.settings())


def dataset_record(dataset: Dataset) -> records.DatasetRecord:
    """Returns the entry of a data set in `run.json`."""
    return records.DatasetRecord(dataset.name, dataset.sha256, dataset.class_names, dataset.classes)
