/* The explorer: a decoder, an encoder and a prior in plain JavaScript, with controls to try them.
   Images are Float32Array(784) in [0, 1], with bright ink; z is Float32Array(latent_dim).
   pictures.js turns pictures into such images. */

import { greyOf, ifPreprocessed, inkOf, PIXELS, preprocess, SIDE } from "./pictures.js";

const model = JSON.parse(document.getElementById("model").textContent);
const $ = (id) => document.getElementById(id);
const SAMPLES = 100;
// Milliseconds of decoding between two frames; the remaining samples wait for the next one.
const DECODE_MILLISECONDS = 12;

// Numbers ------------------------------------------------------------------------------------

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Half floats (IEEE 754 binary16) as Float32Array. */
function halves(base64) {
  const words = new Uint16Array(bytes(base64).buffer);
  const table = new Float32Array(1 << 16);
  for (let word = 0; word < table.length; word++) {
    const sign = word & 0x8000 ? -1 : 1;
    const exponent = (word >> 10) & 31;
    const fraction = word & 1023;
    table[word] = exponent
      ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
      : sign * 2 ** -14 * (fraction / 1024);
  }
  return Float32Array.from(words, (word) => table[word]);
}

/** A generator of uniform numbers in (0, 1), the same for the same seed (mulberry32). */
function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** Standard normal numbers of such a generator (Box and Muller). */
function normals(next, count) {
  return Float32Array.from({ length: count }, () => {
    return Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
  });
}

// The network --------------------------------------------------------------------------------

/** The error function, accurate to 1.5e-7 (Abramowitz and Stegun 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum =
    t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const ACTIVATIONS = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(0, x),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  tanh: Math.tanh,
};

const weights = halves(model.weights);
let position = 0;
function nextWeights(count) {
  position += count;
  return weights.subarray(position - count, position);
}
function layers(sizes) {
  return sizes.slice(1).map((outputs, index) => {
    const inputs = sizes[index];
    return { inputs, outputs, kernel: nextWeights(inputs * outputs), bias: nextWeights(outputs) };
  });
}
const encoder = layers(model.encoder);
const decoder = layers(model.decoder);

function forward(network, input) {
  const activation = ACTIVATIONS[model.activation];
  network.forEach(({ inputs, outputs, kernel, bias }, index) => {
    const sums = Float32Array.from(bias);
    for (let i = 0; i < inputs; i++) {
      const value = input[i];
      if (value === 0) continue;
      for (let j = 0, at = i * outputs; j < outputs; j++, at++) sums[j] += value * kernel[at];
    }
    if (index < network.length - 1) {
      const isResidual = model.residual && index > 0 && inputs === outputs;
      for (let j = 0; j < outputs; j++) {
        sums[j] = activation(sums[j]) + (isResidual ? input[j] : 0);
      }
    }
    input = sums;
  });
  return input;
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const decode = (z) => forward(decoder, z).map(sigmoid);

/** q(z | x) of an image: mu and log_var. */
function encode(image) {
  const both = forward(encoder, image);
  const logVar = both.slice(model.latent_dim).map((x) => Math.min(x, model.largest_log_var));
  return { mu: both.slice(0, model.latent_dim), logVar };
}

/** Binary cross-entropy of logits against an image, nats. */
function crossEntropy(logits, image) {
  let sum = 0;
  for (let i = 0; i < PIXELS; i++) {
    const x = logits[i];
    sum += Math.max(x, 0) - x * image[i] + Math.log1p(Math.exp(-Math.abs(x)));
  }
  return sum;
}

/** The terms of an image's -ELBO, nats, and the mean of log p(z) under the fitted prior if there is
    one; means over 16 samples of z. */
function figures(image) {
  const { mu, logVar } = encode(image);
  let kld = 0;
  for (let i = 0; i < mu.length; i++) {
    kld += 0.5 * (Math.exp(logVar[i]) + mu[i] ** 2 - logVar[i] - 1);
  }
  const next = uniforms(1);
  let [bce, logDensity] = [0, 0];
  for (let sample = 0; sample < 16; sample++) {
    const noise = normals(next, mu.length);
    const z = mu.map((m, i) => m + Math.exp(0.5 * logVar[i]) * noise[i]);
    bce += crossEntropy(forward(decoder, z), image) / 16;
    if (prior) logDensity += logDensityOf(z) / 16;
  }
  return { mu, kld, bce, elbo: bce + kld, logDensity };
}

// The fitted prior ---------------------------------------------------------------------------

const prior = model.prior && {
  ...model.prior,
  means: halves(model.prior.means),
  factors: halves(model.prior.factors),
};
const classes = prior ? [...new Set(prior.labels)] : [];
const className = (label) => model.class_names[label] || String(label);

/** A sample of z: from the fitted prior, from one class of it, or from N(0, I). */
function sampled(next, kind, label, temperature) {
  const z = normals(next, model.latent_dim).map((value) => value * temperature);
  let place = next();
  if (kind !== "fitted") return z;
  const chosen = [...prior.labels.keys()].filter((m) => label === "" || prior.labels[m] === +label);
  place *= chosen.reduce((sum, m) => sum + prior.weights[m], 0);
  const passes = (m) => {
    place -= prior.weights[m];
    return place < 0;
  };
  const component = chosen.find(passes) ?? chosen.at(-1);
  const size = prior.active.length;
  const noise = prior.active.map((unit) => z[unit]);
  prior.active.forEach((unit, i) => {
    z[unit] = prior.means[component * size + i];
    const row = (component * size + i) * size;
    for (let j = 0; j <= i; j++) z[unit] += prior.factors[row + j] * noise[j];
  });
  return z;
}

/** log of weight and density of each component at z, on the active dimensions, without the constant
    that all have in common. */
function componentLogs(z) {
  const size = prior.active.length;
  return prior.weights.map((weight, m) => {
    const white = new Float64Array(size);
    let log = Math.log(weight);
    for (let i = 0; i < size; i++) {
      const row = (m * size + i) * size;
      let rest = z[prior.active[i]] - prior.means[m * size + i];
      for (let j = 0; j < i; j++) rest -= prior.factors[row + j] * white[j];
      white[i] = rest / prior.factors[row + i];
      log -= 0.5 * white[i] ** 2 + Math.log(prior.factors[row + i]);
    }
    return log;
  });
}

/** log p(z) under the fitted prior, on the active dimensions, without its constant. */
function logDensityOf(z) {
  const logs = componentLogs(z);
  const top = Math.max(...logs);
  return top + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - top), 0));
}

/** The most probable class of an image under the fitted prior, and p(class | z = mu). */
function classify(mu) {
  const sums = new Map();
  const logs = componentLogs(mu);
  const top = Math.max(...logs);
  logs.forEach((log, m) => {
    sums.set(prior.labels[m], (sums.get(prior.labels[m]) ?? 0) + Math.exp(log - top));
  });
  const total = [...sums.values()].reduce((a, b) => a + b);
  const [label, sum] = [...sums].reduce((a, b) => (b[1] > a[1] ? b : a));
  return { label, probability: sum / total };
}

// None of the classes ------------------------------------------------------------------------

/* The weights file holds no -ELBO of real images, but it tells what to expect of them. A decoder
   that is fitted to images is calibrated: the cross-entropy of real images is, on average, the
   entropy of the pixels that it predicts, and samples from the prior show that entropy, too. (Mean
   cross-entropy of the test images over mean entropy of samples: 1.01 with the pretrained weights,
   0.89 to 1.07 with eight others, with either loss, trained on 300 images or more; 0.75 after one
   epoch.) And z of real images is distributed as the fitted prior. An image is none
   of the classes if its cross-entropy is above MOST_ERROR times that entropy, or if log p(z) is more
   than MOST_DEVIATIONS standard deviations below its mean over samples.

   Measured with the pretrained weights, this is the answer to 1.5 % of MNIST's test images; to 88 %
   of those rotated by 90 degrees (without zeros), 54 % of mirrored ones, 92 % of scribbles, 63 % of
   printed letters, 80 % of squares, triangles, crosses, stars and discs, 86 % of two digits side by
   side, and all of noise. With two latent dimensions: to 4.3 % of the test images, 38 % of rotated
   ones and 47 % of scribbles. So it is a hint, and the page says so. */
const MOST_ERROR = 1.8;
const MOST_DEVIATIONS = 3;

let expectations = null;
/** What to expect of images like the training images: the mean cross-entropy, nats, and mean and
    standard deviation of log p(z); from samples, at the first call. */
function expected() {
  if (expectations) return expectations;
  const next = uniforms(1);
  const sample = () => sampled(next, prior ? "fitted" : "standard", "", 1);
  let bce = 0;
  for (let i = 0; i < SAMPLES; i++) {
    const logits = forward(decoder, sample());
    bce += crossEntropy(logits, logits.map(sigmoid)) / SAMPLES;
  }
  const logs = prior ? Array.from({ length: 1000 }, () => logDensityOf(sample())) : [0];
  const mean = logs.reduce((a, b) => a + b) / logs.length;
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / logs.length;
  expectations = { bce, logDensity: mean, deviation: Math.sqrt(variance) };
  return expectations;
}

/** Why an image is none of the classes, as a sentence; empty if it may be one. */
function whyNone({ bce, logDensity }) {
  const usual = expected();
  const error = bce / usual.bce;
  if (error > MOST_ERROR) {
    return `Its reconstruction error is ${error.toFixed(1)} times the usual one.`;
  }
  if (prior && usual.logDensity - logDensity > MOST_DEVIATIONS * usual.deviation) {
    return "Its z lies where hardly any training image is.";
  }
  return "";
}

// What is shown ------------------------------------------------------------------------------

function paint(canvas, pixels) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let i = 0; i < PIXELS; i++) {
    image.data.fill(Math.round(255 * (1 - pixels[i])), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** All that a link keeps. The current image is sample `pick`, or `z` if that is not empty; `edits`
    are its changed dimensions, in standard deviations. `from` and `to` are the ends of the
    interpolation; if they are empty, the first two samples. A z is written in thousandths. */
const START = {
  seed: 0,
  prior: prior ? "fitted" : "standard",
  digit: "",
  temperature: 1,
  pick: 0,
  z: "",
  edits: {},
  from: "",
  to: "",
  share: 0.5,
};
let state;
let origin = "";
let samples = [];
let base = null;
const deviations = model.posterior.mu_std;
const kld = model.posterior.KLD;
const units = [...kld.keys()].sort((a, b) => kld[b] - kld[a]).slice(0, model.sliders);

const written = (z) => Array.from(z, (value) => Math.round(1000 * value)).join("_");
const parsed = (text) => Float32Array.from(text.split("_"), (value) => value / 1000);

function remember() {
  const moved = Object.entries(state.edits).map(([unit, value]) => `${unit}:${value}`);
  const kept = new URLSearchParams({ ...state, edits: moved.join(",") });
  for (const [name, value] of [...kept]) {
    if (!value) kept.delete(name);
  }
  history.replaceState(null, "", `#${kept}`);
}

/** Restores the state from the link, as far as it fits these weights. */
function recall() {
  state = { ...START, edits: {} };
  const kept = new URLSearchParams(location.hash.slice(1));
  const most = { seed: 2 ** 31, temperature: 1.5, pick: SAMPLES - 1, share: 1 };
  for (const [name, limit] of Object.entries(most)) {
    const value = parseFloat(kept.get(name));
    if (Number.isFinite(value)) state[name] = Math.min(Math.max(value, 0), limit);
  }
  state.pick = Math.floor(state.pick);
  state.seed = Math.floor(state.seed);
  for (const name of ["z", "from", "to"]) {
    const text = kept.get(name) ?? "";
    const z = parsed(text);
    if (z.length === model.latent_dim && z.every(Number.isFinite)) state[name] = text;
  }
  if (prior && kept.get("prior") === "standard") state.prior = "standard";
  if (kept.get("digit") && classes.includes(Number(kept.get("digit")))) {
    state.digit = kept.get("digit");
  }
  for (const pair of (kept.get("edits") ?? "").split(",")) {
    const [unit, value] = pair.split(":").map(Number);
    if (units.includes(unit) && Math.abs(value) <= 3) state.edits[unit] = value;
  }
  origin = "From the link";
}

function current() {
  const z = Float32Array.from(base);
  for (const [unit, value] of Object.entries(state.edits)) z[unit] += value * deviations[unit];
  return z;
}

function showPicked() {
  const image = decode(current());
  paint($("picked"), image);
  paint($("here"), image);
  if (!state.z) paint($("samples").children[state.pick].firstChild, image);
  $("origin").textContent = state.z ? origin : `Sample ${state.pick + 1}`;
  showMap();
  remember();
}

function showSliders() {
  for (const unit of units) {
    const input = $(`unit-${unit}`);
    input.value = state.edits[unit] ?? 0;
    input.previousElementSibling.textContent = (+input.value).toFixed(2);
  }
}

/** Makes an image the current one: a sample, or any z; `from` says where that comes from. */
function show(index, z = null, from = "") {
  // The sample's own picture was changed along with it.
  if (base && !state.z) paint($("samples").children[state.pick].firstChild, decode(base));
  if (z) state.z = written(z);
  else Object.assign(state, { pick: index, z: "" });
  origin = from;
  state.edits = {};
  showBase();
}

function showBase() {
  base = state.z ? parsed(state.z) : samples[state.pick];
  [...$("samples").children].forEach((button, i) => {
    button.setAttribute("aria-pressed", i === state.pick && !state.z);
    button.tabIndex = i === state.pick ? 0 : -1;
  });
  showSliders();
  showPicked();
}

let filling = 0;
function fillSamples() {
  const next = uniforms(state.seed + 1);
  samples = Array.from({ length: SAMPLES }, () => {
    return sampled(next, state.prior, state.digit, state.temperature);
  });
  const turn = ++filling;
  let index = 0;
  const some = () => {
    const until = performance.now() + DECODE_MILLISECONDS;
    while (index < SAMPLES && performance.now() < until && turn === filling) {
      const isCurrent = index === state.pick && !state.z;
      paint(
        $("samples").children[index].firstChild,
        decode(isCurrent ? current() : samples[index]),
      );
      index++;
    }
    if (turn !== filling) return;
    if (index < SAMPLES) requestAnimationFrame(some);
    else $("samples").dataset.full = "yes";
  };
  delete $("samples").dataset.full;
  requestAnimationFrame(some);
  const fitted = state.prior === "fitted";
  $("digit").disabled = !fitted;
  $("digit").value = fitted ? state.digit : "";
  $("samples-text").textContent = fitted
    ? "The fitted prior has its mass where the encoder puts training images: at temperature 1, nearly all samples from it look like them."
    : "N(0, I) is the prior used in training. It has mass where the encoder puts no training image, so some samples from it do not look like one.";
  showBase();
  showPath();
}

/** Draws new samples; changes to an old one are dropped. */
function resample() {
  if (!state.z) state.edits = {};
  fillSamples();
}

// Between two images -------------------------------------------------------------------------

/** Spherical interpolation (Shoemake 1985), as eval_genresult.py does it. */
function between(a, b, share) {
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const lengths = Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / Math.max(lengths, 1e-30))));
  let shares = [1 - share, share];
  if (Math.sin(angle) >= 1e-6) {
    shares = shares.map((part) => Math.sin(part * angle) / Math.sin(angle));
  }
  return a.map((value, i) => shares[0] * value + shares[1] * b[i]);
}

function pathEnds() {
  return [state.from, state.to].map((text, i) => (text ? parsed(text) : samples[i]));
}

function showPath() {
  const [from, to] = pathEnds();
  paint($("path-from"), decode(from));
  paint($("path-to"), decode(to));
  showShare();
}

function showShare() {
  $("share").value = state.share;
  $("share-value").textContent = state.share.toFixed(2);
  paint($("path-now"), decode(between(...pathEnds(), state.share)));
  remember();
}

// Your own image -----------------------------------------------------------------------------

const pad = $("pad");
const pen = pad.getContext("2d", { willReadFrequently: true });
let last = null;
let own = null;
let ownOrigin = "";

function clearPad() {
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, pad.width, pad.height);
  own = null;
  ownOrigin = "Your drawing";
  $("take").disabled = true;
  $("verdict").textContent = "Nothing drawn yet.";
  $("own-figures").textContent = "";
  const empty = new Float32Array(PIXELS);
  paint($("preprocessed"), empty);
  paint($("reconstructed"), empty);
}

function stroke(from, to) {
  pen.lineWidth = 20;
  pen.lineCap = "round";
  pen.strokeStyle = "#000";
  pen.beginPath();
  pen.moveTo(from.x, from.y);
  pen.lineTo(to.x + 0.01, to.y);
  pen.stroke();
}

function evaluateDrawing() {
  const { data } = pen.getImageData(0, 0, pad.width, pad.height);
  const ink = Float32Array.from({ length: data.length / 4 }, (_, i) => 1 - data[4 * i] / 255);
  const image = preprocess(ink, pad.width);
  if (image) evaluateOwn(image);
}

/** Shows an image of the user's as the model sees it, its reconstruction, and what it may be. */
function evaluateOwn(image) {
  const found = figures(image);
  own = found.mu;
  paint($("preprocessed"), image);
  paint($("reconstructed"), decode(found.mu));
  $("verdict").textContent = verdict(found);
  $("own-figures").textContent =
    `−ELBO ${found.elbo.toFixed(1)} nats, including KL ${found.kld.toFixed(1)}.`;
  $("take").disabled = false;
}

/** The class of an image with its probability, or that it is none of the classes. */
function verdict(found) {
  if (!model.active) {
    return "This model reconstructs every image in the same way, so it cannot tell what yours is.";
  }
  const why = whyNone(found);
  if (classes.length < 2) {
    if (why) return `Unlike the training images. ${why}`;
    return "Similar to the training images. This model knows no classes.";
  }
  const { label, probability } = classify(found.mu);
  if (why) return `None of these. ${why} The closest class is ${className(label)}.`;
  // Rounded to 1.00, it would look certain.
  const bound = probability > 0.99 ? "p > 0.99" : `p = ${probability.toFixed(2)}`;
  return `Classified as ${className(label)} (${bound}).`;
}

/** Shows why there is no image. */
function refuse(sentence) {
  clearPad();
  $("verdict").textContent = sentence;
}

/** A file's name with control characters made visible, shortened. */
function printable(name) {
  const text = name.replace(/\p{C}/gu, "\ufffd");
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

let opening = 0;
/** Evaluates the first of some picture files. */
async function openFiles(files) {
  const turn = ++opening;
  const [file] = files;
  if (!file) {
    refuse("That was no file: drop a PNG or JPEG file.");
    return;
  }
  const name = printable(file.name);
  let grey = null;
  try {
    grey = await greyOf(file);
  } catch {
    // The browser's own reason ("The source image could not be decoded") helps nobody.
  }
  if (turn !== opening) return;
  if (!grey) {
    refuse(`${name} is not a picture that this browser can read: choose a PNG or JPEG file.`);
    return;
  }
  const done = ifPreprocessed(grey);
  const ink = done ? { values: done, width: SIDE, others: 0 } : inkOf(grey);
  const image = done ?? (ink && preprocess(ink.values, ink.width));
  if (!image) {
    refuse(`${name} shows no ink: take a clearer picture, with dark ink on plain paper.`);
    return;
  }
  clearPad();
  showInk(ink);
  ownOrigin = name;
  evaluateOwn(image);
  const notes = [`From ${name}.`];
  if (files.length > 1) notes.push(`Only the first of ${files.length} files was read.`);
  if (ink.others) notes.push("It shows several characters; the largest one was read.");
  $("own-figures").textContent += ` ${notes.join(" ")}`;
}

/** Shows on the pad the ink that was found in a picture. */
function showInk({ values, width }) {
  const height = values.length / width;
  const found = Object.assign(document.createElement("canvas"), { width, height });
  const context = found.getContext("2d");
  const image = context.createImageData(width, height);
  values.forEach((value, i) => {
    image.data.fill(Math.round(255 * (1 - value)), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  const scale = pad.width / Math.max(width, height);
  const [w, h] = [width * scale, height * scale];
  pen.drawImage(found, (pad.width - w) / 2, (pad.height - h) / 2, w, h);
}

function padPoint(event) {
  const box = pad.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) * pad.width) / box.width,
    y: ((event.clientY - box.top) * pad.height) / box.height,
  };
}

// The map ------------------------------------------------------------------------------------

const map = $("map");
// Longer names of classes would hide each other.
const MAP_LETTERS = 6;
let point = [0, 0];

function toCanvas([x, y]) {
  const { low, high } = model.plane;
  return [
    (map.width * (x - low[0])) / (high[0] - low[0]),
    map.height * (1 - (y - low[1]) / (high[1] - low[1])),
  ];
}

function showMap() {
  if (!model.plane) return;
  point = placeOf(current());
  const context = map.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  context.clearRect(0, 0, map.width, map.height);
  context.font = "13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = style.getPropertyValue("--ink");
  context.strokeStyle = style.getPropertyValue("--paper");
  context.lineWidth = 3;
  model.plane.points.forEach((place, m) => {
    const name = className(prior.labels[m]);
    const label = name.length > MAP_LETTERS ? `${name.slice(0, MAP_LETTERS)}…` : name;
    context.strokeText(label, ...toCanvas(place));
    context.fillText(label, ...toCanvas(place));
  });
  const [x, y] = toCanvas(point);
  context.strokeStyle = style.getPropertyValue("--accent");
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  context.stroke();
}

/** Makes the image at a point of the map the current one; dimensions outside the plane are 0. */
function pointAt(x, y) {
  const { low, high, origin, axes, units: active } = model.plane;
  const [a, b] = [x, y].map((value, i) => Math.min(Math.max(value, low[i]), high[i]));
  const z = new Float32Array(model.latent_dim);
  active.forEach((unit, i) => {
    z[unit] = origin[i] + a * axes[0][i] + b * axes[1][i];
  });
  show(0, z, "From the map");
}

/** The position of a z on the map: its projection onto the plane. */
function placeOf(z) {
  const { origin, axes, units: active } = model.plane;
  return axes.map((axis) => {
    return active.reduce((sum, unit, i) => sum + (z[unit] - origin[i]) * axis[i], 0);
  });
}

// Controls -----------------------------------------------------------------------------------

function build() {
  for (let i = 0; i < SAMPLES; i++) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Sample ${i + 1} of ${SAMPLES}`);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    button.append(canvas);
    button.addEventListener("click", () => show(i));
    $("samples").append(button);
  }
  $("samples").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };
    const buttons = [...$("samples").children];
    const index = buttons.indexOf(document.activeElement) + moves[event.key];
    if (!(index >= 0 && index < SAMPLES)) return;
    event.preventDefault();
    buttons.forEach((button, i) => {
      button.tabIndex = i === index ? 0 : -1;
    });
    buttons[index].focus();
  });
  $("digit").append(
    new Option("all", ""),
    ...classes.map((label) => new Option(className(label), label)),
  );
  for (const unit of units) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const value = document.createElement("output");
    Object.assign(input, { type: "range", id: `unit-${unit}`, min: -3, max: 3, step: 0.05 });
    label.htmlFor = input.id;
    label.append(`z[${unit}], KL ${kld[unit].toFixed(2)} nats`, value, input);
    const move = (to) => {
      state.edits[unit] = to;
      if (to === 0) delete state.edits[unit];
      showSliders();
      showPicked();
    };
    input.addEventListener("input", () => move(+input.value));
    input.addEventListener("dblclick", () => move(0));
    input.addEventListener("keydown", (event) => {
      if (event.key === "Delete" || event.key === "Backspace") move(0);
    });
    $("sliders").append(label);
  }
}

function showControls() {
  for (const radio of document.getElementsByName("prior")) {
    radio.checked = radio.value === state.prior;
    radio.disabled = !prior;
  }
  $("temperature").value = state.temperature;
  $("temperature-value").textContent = state.temperature.toFixed(2);
}

/** Restores everything from the link. */
function open() {
  recall();
  showControls();
  fillSamples();
}

function listen() {
  for (const radio of document.getElementsByName("prior")) {
    radio.addEventListener("change", () => {
      state.prior = radio.value;
      resample();
    });
  }
  $("digit").addEventListener("change", (event) => {
    state.digit = event.target.value;
    resample();
  });
  $("temperature").addEventListener("input", (event) => {
    state.temperature = +event.target.value;
    showControls();
    resample();
  });
  $("again").addEventListener("click", () => {
    state.seed++;
    resample();
  });
  $("reset").addEventListener("click", () => {
    state.edits = {};
    showBase();
  });
  $("save").addEventListener("click", () => {
    const large = Object.assign(document.createElement("canvas"), { width: 280, height: 280 });
    large.getContext("2d").drawImage($("picked"), 0, 0, 280, 280);
    const link = document.createElement("a");
    Object.assign(link, { href: large.toDataURL("image/png"), download: "image.png" }).click();
  });
  for (const end of ["from", "to"]) {
    $(end).addEventListener("click", () => {
      state[end] = written(current());
      showPath();
    });
  }
  $("share").addEventListener("input", (event) => {
    state.share = +event.target.value;
    showShare();
  });
  for (const slider of document.querySelectorAll("input[type=range]")) forgiveScrolling(slider);
  $("clear").addEventListener("click", clearPad);
  $("take").addEventListener("click", () => {
    show(0, own, ownOrigin);
    $("picked").scrollIntoView({ block: "nearest" });
  });
  listenToPad();
  listenToFiles();
  if (model.plane) listenToMap();
  else $("map-row").hidden = true;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMap);
  window.addEventListener("hashchange", open);
}

/** Undoes the change to a slider by a finger that scrolls the page. */
function forgiveScrolling(slider) {
  let before = slider.value;
  slider.addEventListener("pointerdown", () => {
    before = slider.value;
  });
  slider.addEventListener("pointercancel", () => {
    slider.value = before;
    slider.dispatchEvent(new Event("input"));
  });
}

function listenToPad() {
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = padPoint(event);
    stroke(last, last);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!last) return;
    const to = padPoint(event);
    stroke(last, to);
    last = to;
  });
  const lift = () => {
    if (last) evaluateDrawing();
    last = null;
  };
  pad.addEventListener("pointerup", lift);
  pad.addEventListener("pointercancel", lift);
  const key = { x: 140, y: 140, down: false };
  const showPen = () => {
    $("pen").style.left = `${key.x / 2.8}%`;
    $("pen").style.top = `${key.y / 2.8}%`;
    $("pen").classList.toggle("down", key.down);
  };
  showPen();
  pad.addEventListener("keydown", (event) => {
    const moves = {
      ArrowLeft: [-12, 0],
      ArrowRight: [12, 0],
      ArrowUp: [0, -12],
      ArrowDown: [0, 12],
      " ": [0, 0],
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    if (event.key === " ") key.down = !key.down;
    const to = {
      x: Math.min(Math.max(key.x + move[0], 20), 260),
      y: Math.min(Math.max(key.y + move[1], 20), 260),
    };
    if (key.down) {
      stroke(key, to);
      evaluateDrawing();
    }
    Object.assign(key, to);
    showPen();
  });
}

function listenToFiles() {
  $("file").addEventListener("change", (event) => {
    openFiles([...event.target.files]);
    // So that the same file can be chosen again.
    event.target.value = "";
  });
  const mark = (isOver) => document.body.classList.toggle("dropping", isOver);
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false);
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    openFiles([...event.dataTransfer.files]);
    $("own-title").scrollIntoView({ block: "nearest" });
  });
}

function listenToMap() {
  const at = (event) => {
    const box = map.getBoundingClientRect();
    const { low, high } = model.plane;
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    pointAt(low[0] + x * (high[0] - low[0]), high[1] - y * (high[1] - low[1]));
  };
  let held = false;
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    held = true;
    at(event);
  });
  map.addEventListener("pointermove", (event) => held && at(event));
  map.addEventListener("pointerup", () => (held = false));
  map.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const { low, high } = model.plane;
    pointAt(...point.map((value, i) => value + (move[i] * (high[i] - low[i])) / 40));
  });
}

$("about").textContent = model.about;
$("map-text").textContent = model.plane
  ? model.plane.text
  : "There is no map: it needs a fitted prior with at least two active dimensions.";
build();
listen();
clearPad();
open();
// For the tests, and for use in the console.
window.explorer = { model, decode, encode, classify, figures, expected, whyNone };
