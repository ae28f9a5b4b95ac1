"""The contenders of the benches: one training loop each, as short as its framework allows.

    python -m bench.contenders ours           # then an empty line on stdin for each epoch
    python -m bench.contenders jax_scan --batch 1024 --data_dir ~/mnist

Each is a process of its own, so that no thread pool meets another, and waits between its turns.
All but PyTorch's example train the same model: the same layers, Glorot's uniform weights, Bernoulli
loss plus KL, one draw of z, Adam, float32, shuffled batches of the same size, images resident in
memory. A line of JSON answers each line on stdin: the seconds that the turn took, its mean loss,
and, where the contender is a peer, its -ELBO on the validation images, measured afterwards.
Exit code 5: the framework is not installed.
"""

import itertools
import json
import os
import sys
import time

import numpy as np

import data
import train
from support import cli

EXIT_ABSENT = 5
EPSILON = 1e-7
MATMUL_SIDE, MATMULS = 2048, 10
OWN = ("ours", "ours_default", "validation", "nll")


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.contenders", __doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--batch", type=cli.integer(1), default=100, help="images a step")
    parser.add_argument("--images", type=cli.integer(1), default=55_000, help="of an epoch")
    parser.add_argument(
        "--hidden_units", type=cli.integer(1), nargs="+", default=[512, 256], help="of the model"
    )
    parser.add_argument("--latent_dim", type=cli.integer(1), default=128, help="of the model")
    parser.add_argument("--activation", choices=("silu", "relu"), default="silu", help="of layers")
    parser.add_argument("--learning_rate", type=cli.number(0, 1), default=1e-3, help="of Adam")
    parser.add_argument(
        "--samples", type=cli.integer(1), default=1, help="z an image, `ours` and `nll` alone"
    )
    cli.add_data_flags(parser, "MNIST where it can be had, otherwise the embedded digits")
    return parser


@cli.script(parser)
def main(args):
    """Builds one contender and lets it take a turn for each line on stdin."""
    # Answers go where stdout went; whatever a framework prints goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    started = time.perf_counter()
    try:
        if args.name in OWN:
            # As our scripts start: with their settings of TensorFlow, which peers do without.
            cli.quiet_tensorflow()
        turn = CONTENDERS[args.name](args)
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed", file=sys.stderr)
        return EXIT_ABSENT
    print(json.dumps({"seconds": time.perf_counter() - started}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        # The loss as a number: what runs asynchronously has to finish for it.
        loss = float(turn())
        answer = {"seconds": time.perf_counter() - started, "loss": loss}
        if hasattr(turn, "validate"):
            answer["validation"] = float(turn.validate())
        print(json.dumps(answer), file=answers, flush=True)


def training_images(args):
    """Returns uint8 images (n, 784), repeated where the data set has fewer, of whole batches."""
    images = data.load(args.dataset, args.data_dir).train.images
    count = args.images // args.batch * args.batch
    return np.resize(images, (count, images.shape[1]))


def validation_images(args):
    """Returns float32 images (n, 784) in [0, 1], to judge by."""
    return data.load(args.dataset, args.data_dir).validation.images.astype("float32") / 255


def ours(args, warp=0.0, weight_decay=0.0):
    """This repository's compiled window of train.py's own step."""
    import keras

    import model
    from support import window

    images = training_images(args)
    keras.utils.set_random_seed(args.seed)
    vae = model.VAE(args.hidden_units, args.latent_dim, args.activation)
    optimizer = train.adamw(vae.trainable_variables, args.learning_rate, weight_decay)
    size = window.size(vae, args.batch, args.samples)
    run = window.compiled(
        lambda x, noise, _: train.loss_and_gradients(vae, x, noise, "bce", 1.0),
        lambda gradients: train.update(optimizer, gradients, vae.trainable_variables),
        ("objective", *model.TERMS),
        window.inputs(images, args.seed, args.latent_dim, args.samples, warp),
        optimizer.iterations,
        size,
        args.batch,
    )
    epochs = iter(range(sys.maxsize))

    def epoch():
        order = data.batches(len(images), args.batch, args.seed, next(epochs))
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        return np.concatenate([run(part)["objective"] for part in parts]).mean()

    return epoch


def ours_default(args):
    """The same under the default recipe of train.py: two draws of z, warped images, decay."""
    defaults = train.parser().parse_args([])
    args.samples = defaults.elbo_samples
    # Here all images are warped: the share shapes the numbers, not the work.
    return ours(args, train.recipe(defaults.epoch)[2], defaults.weight_decay)


def validation(args):
    """The pass over 5,000 validation images that ends an epoch of train.py."""
    import model
    from support import evaluation

    images = training_images(args)[:5000]
    evaluate = evaluation.evaluator(model.VAE(args.hidden_units, args.latent_dim), args.seed)
    return lambda: evaluate(images)["loss_total"].mean()


def nll(args):
    """`evaluation.nll` of 1,000 images with `--samples` samples, compilation included."""
    import model
    from support import evaluation

    images = evaluation.binarized(training_images(args)[:1000], args.seed)
    vae = model.VAE(args.hidden_units, args.latent_dim)
    return lambda: evaluation.nll(vae, images, args.samples, args.seed)["nll"].mean()


def keras_model(args):
    """The model as Keras's own example writes it: a Model with a train_step."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(args.seed)
    dense = keras.layers.Dense
    inwards = [dense(width, args.activation) for width in args.hidden_units]
    outwards = [dense(width, args.activation) for width in reversed(args.hidden_units)]
    encoder = keras.Sequential([keras.Input((784,)), *inwards, dense(2 * args.latent_dim)])
    decoder = keras.Sequential([keras.Input((args.latent_dim,)), *outwards, dense(784)])

    class Peer(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder
            self.loss_tracker = keras.metrics.Mean(name="loss")

        def loss_of(self, x):
            mu, log_var = tf.split(self.encoder(x), 2, axis=1)
            z = mu + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mu))
            cross = tf.nn.sigmoid_cross_entropy_with_logits(x, self.decoder(z))
            kld = 0.5 * tf.reduce_sum(tf.exp(log_var) + mu**2 - log_var - 1, 1)
            return tf.reduce_mean(tf.reduce_sum(cross, 1) + kld)

        def train_step(self, x):
            with tf.GradientTape() as tape:
                loss = self.loss_of(x)
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.loss_tracker.update_state(loss)
            return {"loss": self.loss_tracker.result()}

        @property
        def metrics(self):
            return [self.loss_tracker]

    return Peer()


def keras_fit(args, **settings):
    """`Model.fit` on arrays; without `settings`, as it comes."""
    import keras

    peer = keras_model(args)
    peer.compile(keras.optimizers.Adam(args.learning_rate, epsilon=EPSILON), **settings)
    images, others = training_images(args).astype("float32") / 255, validation_images(args)

    def epoch():
        return peer.fit(images, batch_size=args.batch, verbose=0).history["loss"][-1]

    epoch.validate = lambda: peer.loss_of(others)
    return epoch


def keras_fit_compiled(args):
    """`Model.fit` with XLA and many steps a call."""
    return keras_fit(args, jit_compile=True, steps_per_execution=50)


def torch_eager(args, compiled=False):
    """PyTorch, eager, with its fused Adam."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(args.seed)
    activation = {"silu": nn.SiLU, "relu": nn.ReLU}[args.activation]

    def network(widths):
        layers = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), activation()]
            nn.init.xavier_uniform_(layers[-2].weight)
            nn.init.zeros_(layers[-2].bias)
        return nn.Sequential(*layers[:-1])

    encoder = network([784, *args.hidden_units, 2 * args.latent_dim])
    decoder = network([args.latent_dim, *reversed(args.hidden_units), 784])
    weights = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(weights, args.learning_rate, eps=EPSILON, fused=True)
    images = torch.from_numpy(training_images(args)).float() / 255
    others = torch.from_numpy(validation_images(args))

    def loss_of(x):
        mu, log_var = encoder(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        cross = functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        return (cross + 0.5 * (log_var.exp() + mu**2 - log_var - 1).sum()) / len(x)

    if compiled:
        loss_of = torch.compile(loss_of)

    def epoch():
        total = torch.zeros(())
        for batch in torch.randperm(len(images)).split(args.batch):
            adam.zero_grad(set_to_none=True)
            loss = loss_of(images[batch])
            loss.backward()
            adam.step()
            total += loss.detach()
        return total / (len(images) // args.batch)

    epoch.validate = torch.no_grad()(lambda: loss_of(others))
    return epoch


def torch_compile(args):
    """PyTorch with the loss through `torch.compile`."""
    return torch_eager(args, compiled=True)


def torch_example(args, in_memory=False):
    """PyTorch's basic VAE example, to its published settings and data path.

    784-400-20 with ReLU, PyTorch's own initial weights and Adam at 1e-3, batches of 128 from a
    `DataLoader` that converts image by image, as torchvision's MNIST and `ToTensor` do
    (https://github.com/pytorch/examples/tree/main/vae).
    """
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(args.seed)
    images = training_images(args)

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            picture = Image.fromarray(images[index].reshape(28, 28))
            pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
            return pixels.view(28, 28, 1).permute(2, 0, 1).contiguous().float().div(255)

    class Example(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(784, 400)
            self.fc21 = nn.Linear(400, 20)
            self.fc22 = nn.Linear(400, 20)
            self.fc3 = nn.Linear(20, 400)
            self.fc4 = nn.Linear(400, 784)

        def forward(self, x):
            hidden = functional.relu(self.fc1(x))
            mu, log_var = self.fc21(hidden), self.fc22(hidden)
            z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
            return torch.sigmoid(self.fc4(functional.relu(self.fc3(z)))), mu, log_var

    def loss_of(x):
        x = x.view(-1, 784)
        reconstructed, mu, log_var = example(x)
        bce = functional.binary_cross_entropy(reconstructed, x, reduction="sum")
        return bce - 0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())

    example = Example()
    adam = torch.optim.Adam(example.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(Images(), args.batch, shuffle=True)
    resident = torch.from_numpy(images).float() / 255
    others = torch.from_numpy(validation_images(args))

    def batches():
        if not in_memory:
            return loader
        return (resident[batch] for batch in torch.randperm(len(images)).split(args.batch))

    def epoch():
        total = 0.0
        for x in batches():
            adam.zero_grad()
            loss = loss_of(x)
            loss.backward()
            total += loss.item()
            adam.step()
        return total / len(images)

    epoch.validate = torch.no_grad()(lambda: loss_of(others) / len(others))
    return epoch


def torch_example_in_memory(args):
    """The same example, its images ready in memory."""
    return torch_example(args, in_memory=True)


def jax_scan(args):
    """JAX: `lax.scan` over the whole epoch as one compiled function."""
    import jax
    from jax import numpy as jnp

    # The fastest of its generators on the CPU that is fit for training.
    jax.config.update("jax_default_prng_impl", "rbg")
    glorot = jax.nn.initializers.glorot_uniform()

    def network(key, widths):
        pairs = list(itertools.pairwise(widths))
        keys = jax.random.split(key, len(pairs))
        return [(glorot(k, pair), jnp.zeros(pair[1])) for k, pair in zip(keys, pairs, strict=True)]

    activation = getattr(jax.nn, args.activation)

    def through(layers, x):
        for index, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            if index < len(layers) - 1:
                x = activation(x)
        return x

    def loss_of(weights, x, noise):
        mu, log_var = jnp.split(through(weights[0], x), 2, axis=1)
        logits = through(weights[1], mu + jnp.exp(0.5 * log_var) * noise)
        cross = jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        kld = 0.5 * (jnp.exp(log_var) + mu**2 - log_var - 1)
        return (cross.sum() + kld.sum()) / len(x)

    def step(state, batch):
        weights, first, second, count, key = state
        key, draw = jax.random.split(key)
        noise = jax.random.normal(draw, (args.batch, args.latent_dim))
        loss, grads = jax.value_and_grad(loss_of)(weights, images[batch], noise)
        count = count + 1
        # Adam (Kingma and Ba 2015, algorithm 1), with the order of operations that Keras has.
        first = jax.tree.map(lambda m, g: m + 0.1 * (g - m), first, grads)
        second = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), second, grads)
        rate = args.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, first, second
        )
        return (weights, first, second, count, key), loss

    @jax.jit
    def scanned(state, order):
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    images = jnp.asarray(training_images(args), jnp.float32) / 255
    key = jax.random.key(args.seed)
    weights = [
        network(jax.random.fold_in(key, 1), [784, *args.hidden_units, 2 * args.latent_dim]),
        network(jax.random.fold_in(key, 2), [args.latent_dim, *reversed(args.hidden_units), 784]),
    ]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, zeros, jnp.zeros(()), key)]
    random = np.random.default_rng(args.seed)

    def epoch():
        order = random.permutation(len(images)).reshape(-1, args.batch).astype(np.int32)
        state[0], loss = scanned(state[0], order)
        return loss

    others = jnp.asarray(validation_images(args))
    noise = jax.random.normal(key, (len(others), args.latent_dim))
    epoch.validate = lambda: loss_of(state[0][0], others, noise)
    return epoch


def matmul_numpy(args):
    """The float32 matmul of NumPy."""
    a, b = np.random.default_rng(args.seed).random((2, MATMUL_SIDE, MATMUL_SIDE), np.float32)
    return lambda: [(a @ b)[0, 0] for _ in range(MATMULS)][-1]


def matmul_tensorflow(args):
    """The float32 matmul of TensorFlow."""
    import tensorflow as tf

    a, b = tf.random.stateless_uniform((2, MATMUL_SIDE, MATMUL_SIDE), [args.seed, 0])
    return lambda: [tf.matmul(a, b).numpy()[0, 0] for _ in range(MATMULS)][-1]


def matmul_jax(args):
    """The float32 matmul of JAX."""
    import jax

    a, b = jax.random.uniform(jax.random.key(args.seed), (2, MATMUL_SIDE, MATMUL_SIDE))
    product = jax.jit(jax.numpy.matmul)
    return lambda: [product(a, b).block_until_ready()[0, 0] for _ in range(MATMULS)][-1]


CONTENDERS = {
    function.__name__: function
    for function in (
        ours,
        ours_default,
        validation,
        nll,
        keras_fit,
        keras_fit_compiled,
        torch_eager,
        torch_compile,
        torch_example,
        torch_example_in_memory,
        jax_scan,
        matmul_numpy,
        matmul_tensorflow,
        matmul_jax,
    )
}


if __name__ == "__main__":
    sys.exit(main())
