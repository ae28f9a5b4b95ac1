"""Contenders: PyTorch's basic VAE example, with its published settings and data loading.

784-400-20 with ReLU, PyTorch's own initial weights and Adam at 1e-3, batches of 128 from a
`DataLoader` that converts image by image, as torchvision's MNIST and `ToTensor` do
(https://github.com/pytorch/examples/tree/main/vae).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from bench.contenders import Contender, training_images, validation_images
from support.datasets.types import PIXELS, SIDE


class Example(nn.Module):
    """The example's model."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, PIXELS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the reconstructions of images (n, 784), `mu` and `log_var`."""
        hidden = functional.relu(self.fc1(x))
        mu, log_var = self.fc21(hidden), self.fc22(hidden)
        z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        return torch.sigmoid(self.fc4(functional.relu(self.fc3(z)))), mu, log_var

    def loss_of(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the -ELBO of images, summed over the images."""
        x = x.view(-1, PIXELS)
        reconstructed, mu, log_var = self(x)
        bce = functional.binary_cross_entropy(reconstructed, x, reduction="sum")
        return bce - 0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())


class Images(torch.utils.data.Dataset):
    """Images that are converted one by one, as torchvision does.

    Args:
        images: uint8 (n, 784).
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> torch.Tensor:
        picture = Image.fromarray(self._images[index].reshape(SIDE, SIDE))
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        return pixels.view(SIDE, SIDE, 1).permute(2, 0, 1).contiguous().float().div(255)


def from_loader(args: argparse.Namespace) -> Contender:
    """The example as it is published."""
    loader = torch.utils.data.DataLoader(Images(training_images(args)), args.batch, shuffle=True)
    return _epochs(args, lambda: loader)


def in_memory(args: argparse.Namespace) -> Contender:
    """The same example with its images converted in advance."""
    images = torch.from_numpy(training_images(args)).float() / 255

    def batches() -> Iterable[torch.Tensor]:
        return (images[batch] for batch in torch.randperm(len(images)).split(args.batch))

    return _epochs(args, batches)


def _epochs(args: argparse.Namespace, batches: Callable[[], Iterable[torch.Tensor]]) -> Contender:
    torch.manual_seed(args.seed)
    example = Example()
    adam = torch.optim.Adam(example.parameters(), lr=1e-3)
    validation = torch.from_numpy(validation_images(args))

    def epoch() -> float:
        total, count = 0.0, 0
        for x in batches():
            adam.zero_grad()
            loss = example.loss_of(x)
            loss.backward()
            total += loss.item()
            adam.step()
            count += len(x)
        return total / count

    return Contender(epoch, torch.no_grad()(lambda: example.loss_of(validation) / len(validation)))
