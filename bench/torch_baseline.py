"""Contenders in PyTorch: the same model with PyTorch's fused Adam, eager and compiled."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from bench.contenders import EPSILON, Contender, training_images, validation_images
from support.datasets.types import PIXELS

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}


def eager(args: argparse.Namespace) -> Contender:
    """PyTorch without compilation."""
    return _epochs(args, lambda loss_of: loss_of)


def compiled(args: argparse.Namespace) -> Contender:
    """PyTorch with the loss compiled by `torch.compile`."""
    return _epochs(args, torch.compile)


def _network(widths: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Returns linear layers of these widths, with activations between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def _epochs(args: argparse.Namespace, compile_loss: Callable[[Callable], Callable]) -> Contender:
    torch.manual_seed(args.seed)
    activation = ACTIVATIONS[args.activation]
    encoder = _network([PIXELS, *args.hidden_units, 2 * args.latent_dim], activation)
    decoder = _network([args.latent_dim, *reversed(args.hidden_units), PIXELS], activation)
    weights = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(weights, args.learning_rate, eps=EPSILON, fused=True)
    images = torch.from_numpy(training_images(args)).float() / 255
    validation = torch.from_numpy(validation_images(args))

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        mu, log_var = encoder(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        bce = functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        return (bce + 0.5 * (log_var.exp() + mu**2 - log_var - 1).sum()) / len(x)

    loss_of = compile_loss(loss_of)

    def epoch() -> torch.Tensor:
        total = torch.zeros(())
        for batch in torch.randperm(len(images)).split(args.batch):
            adam.zero_grad(set_to_none=True)
            loss = loss_of(images[batch])
            loss.backward()
            adam.step()
            total += loss.detach()
        return total / (len(images) // args.batch)

    return Contender(epoch, torch.no_grad()(lambda: loss_of(validation)))
