"""support/records.py: a round trip, and what is refused in a damaged run.json, by its name."""

import copy
import json
import os

import pytest

from support import files, records
from support.records import (
    Architecture,
    DatasetRecord,
    Posterior,
    PriorRecord,
    RunRecord,
    Source,
)
from support.storage import weights
from tests.helpers import ROOT

RECORD = RunRecord(
    run_id="0123abcd",
    dataset=DatasetRecord("custom", "beef", ("cat", "dog"), (1, 7)),
    architecture=Architecture((32, 16), 2, "relu"),
    training={
        "seed": 3,
        "learning_rate": 0.003,
        "limit": None,
        "binarize": "dynamic",
        "warm_start": True,
    },
    step=24,
    epochs_done=2,
    versions={"python": "3.12.1", "keras": "3.15.0"},
    source=Source("cafe", 12),
    posterior=Posterior((0.5, -0.5), (1.0, 0.0), (2.0, 0.25)),
    prior=PriorRecord(1.5),
    kept_epoch=2,
)


def as_stored(record):
    """The content of `run.json` as a reader finds it: lists and plain numbers."""
    return json.loads(files.as_json(record.to_json()))


def test_a_record_survives_its_file():
    assert RunRecord.from_json(as_stored(RECORD)) == RECORD
    content = as_stored(RECORD)
    assert content["format"] == 1 and content["architecture"]["hidden_units"] == [32, 16]
    # A second round trip gives the same: reading loses nothing.
    assert as_stored(RunRecord.from_json(content)) == content


def test_a_record_of_a_new_run_survives_its_file():
    new = RunRecord(
        "1", DatasetRecord("mnist", "0"), RECORD.architecture, {"binarize": "none"}, 0, 0, {}
    )
    content = as_stored(new)
    assert RunRecord.from_json(content) == new
    assert set(content["dataset"]) == {"name", "sha256"} and content["posterior"] is None
    # As written by versions without these keys.
    for key in ("source", "posterior", "prior", "kept_epoch"):
        del content[key]
    assert RunRecord.from_json(content) == new


def test_what_follows_from_a_record():
    assert RECORD.finished and RECORD.trained_on_binary_images and RECORD.warm_start
    content = as_stored(RECORD) | {"posterior": None, "training": {"binarize": "none"}}
    other = RunRecord.from_json(content)
    assert not other.finished and not other.warm_start
    assert not other.trained_on_binary_images
    assert PriorRecord.from_json({"gain": None, "why": "too few images"}).reason == "too few images"


HUGE = "x" * 100_000
WRONG = {
    "missing": None,
    "null": None,
    "a number": 3.5,
    "a text": "a text, with spaces",
    "a list": [1, 2],
    "an object": {"unknown": 1},
    "an empty object": {},
    "an empty list": [],
    "an empty text": "",
    "false": False,
    "true": True,
    "a huge number": 10**300,
    "a huge text": HUGE,
    "a huge list": [0.5] * 100_000,
    "a huge object": {str(i): 1 for i in range(10_000)},
    "a negative number": -1,
    "infinity": float("inf"),
}
# Other valid values of keys than those in RECORD.
VALID = {
    "source": ("missing", "null"),
    "posterior": ("missing", "null"),
    "prior": ("missing", "null"),
    "kept_epoch": ("missing", "null"),
}
KEYS = (
    "run_id",
    "dataset",
    "architecture",
    "training",
    "step",
    "epochs_done",
    "versions",
    "source",
    "posterior",
    "prior",
    "kept_epoch",
)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, wrong):
    content = as_stored(RECORD)
    if wrong == "missing":
        del content[key]
    else:
        content[key] = WRONG[wrong]
    if wrong in VALID.get(key, ()):
        assert getattr(RunRecord.from_json(content), key) is None
        return
    if key == "versions" and wrong == "an empty object":
        assert RunRecord.from_json(content).versions == {}
        return
    if key == "prior" and wrong in ("an object", "an empty object", "a huge object"):
        assert RunRecord.from_json(content).prior == PriorRecord(None)  # unknown keys are allowed
        return
    with pytest.raises(ValueError, match=f"run.json: unexpected {key}: expected "):
        RunRecord.from_json(content)


INNER = {
    ("dataset", "name"): "name",
    ("dataset", "sha256"): "sha256",
    ("dataset", "class_names"): "class_names",
    ("dataset", "classes"): "classes",
    ("architecture", "hidden_units"): "hidden_units",
    ("architecture", "latent_dim"): "latent_dim|widths|lists",
    ("architecture", "activation"): "activation",
    ("architecture", "residual"): "residual",
    ("training", "binarize"): "binarize",
    ("source", "run_id"): "run_id",
    ("source", "step"): "step",
    ("posterior", "mu_mean"): "mu_mean|lists|numbers",
    ("posterior", "mu_std"): "mu_std|lists|numbers",
    ("posterior", "KLD"): "KLD|lists|numbers",
    ("prior", "gain"): "gain",
    ("prior", "why"): "why",
}
INNER_VALID = {
    "hidden_units": ("a list",),
    # Earlier versions recorded nothing.
    "residual": ("missing", "true", "false"),
    "class_names": ("missing", "an empty list"),
    "classes": ("missing", "an empty list", "a list"),
    "gain": ("missing", "null", "a number"),
    # Nothing that is empty is a reason.
    "why": (
        "missing",
        "null",
        "a text",
        "an empty text",
        "an empty list",
        "an empty object",
        "false",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("key, inner", INNER)
def test_a_wrong_value_inside_is_refused_by_the_name_of_its_key(key, inner, wrong):
    content = as_stored(RECORD)
    if wrong == "missing":
        del content[key][inner]
    else:
        content[key][inner] = WRONG[wrong]
    if wrong in INNER_VALID.get(inner, ()):
        record = RunRecord.from_json(content)
        assert record.architecture.residual is content["architecture"].get("residual", False)
        return
    with pytest.raises(
        ValueError, match=rf"(?s)run.json: unexpected {key}: .*({INNER[key, inner]})"
    ):
        RunRecord.from_json(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["architecture"].update(hidden_units=[0]),
        lambda content: content["architecture"].update(hidden_units=[]),
        lambda content: content["architecture"].update(hidden_units=[True]),
        lambda content: content["architecture"].update(hidden_units=[8193]),
        lambda content: content["architecture"].update(hidden_units=[1] * 17),
        lambda content: content["architecture"].update(latent_dim=0, more=1),
        lambda content: content["architecture"].update(activation="lambda"),
        lambda content: content["dataset"].update(class_names=["x"] * 257),
        lambda content: content["dataset"].update(class_names=["\a"]),
        lambda content: content["dataset"].update(classes=[256]),
        lambda content: content["dataset"].update(classes=[-1]),
        lambda content: content["dataset"].update(classes=[True]),
        lambda content: content["dataset"].update(classes=[2, 1]),
        lambda content: content["dataset"].update(classes=[1, 1]),
        lambda content: content["dataset"].update(name="../mnist"),
        lambda content: content["training"].update({"x" * 200: 1}),
        lambda content: content["training"].update({"nested": [1]}),
        lambda content: content["training"].update({"text": "x" * 200}),
        lambda content: content.update(step=10**9 + 1),
        lambda content: content.update(epochs_done=-1),
        lambda content: content["versions"].update({"keras": 3}),
        lambda content: content["posterior"].update(KLD=[0.0]),
        lambda content: content["posterior"].update(KLD=[0.0, 1]),
        lambda content: content["posterior"].update(KLD=[0.0, 1e30]),
        lambda content: content["posterior"].update(KLD=[0.0, float("nan")]),
        lambda content: content["prior"].update(gain=float("nan")),
        lambda content: content["prior"].update(gain=1),
        lambda content: content["prior"].update(why="\a"),
    ],
)
def test_values_just_out_of_range_are_refused(change):
    content = copy.deepcopy(as_stored(RECORD))
    change(content)
    with pytest.raises(ValueError, match=r"^run.json: unexpected "):
        RunRecord.from_json(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["architecture"].update(hidden_units=[8192] * 16),
        lambda content: content["architecture"].update(hidden_units=[1]),
        lambda content: content.update(step=10**9, epochs_done=0),
        lambda content: content["dataset"].update(class_names=["x" * 199] * 256),
        lambda content: content["dataset"].update(classes=list(range(256))),
        lambda content: content["posterior"].update(KLD=[-9e29, 9e29]),
    ],
)
def test_values_at_the_end_of_their_range_are_read(change):
    content = as_stored(RECORD)
    change(content)
    assert as_stored(RunRecord.from_json(content)) == content


@pytest.mark.parametrize("key", ["run_id", "sha256", "source"])
def test_an_id_is_a_hexadecimal_number(key):
    """Workers compare run ids as numbers."""
    content = as_stored(RECORD)
    part = content["dataset"] if key == "sha256" else content
    part[key] = {"run_id": "xyz", "step": 1} if key == "source" else "xyz"
    with pytest.raises(ValueError, match="to be a hexadecimal number of 1 to 64 digits"):
        RunRecord.from_json(content)


def test_a_posterior_that_no_reader_would_accept_says_so():
    assert RECORD.posterior.finite
    for value in (float("nan"), float("inf"), -1e31):
        assert not Posterior((0.0,), (1.0,), (value,)).finite


COMMITTED = sorted(
    os.path.relpath(folder, ROOT)
    for folder, _, names in os.walk(os.path.join(ROOT, "better_weight"))
    if "vae.keras" in names
)


def test_weights_come_with_the_repository():
    assert {"better_weight", "better_weight/binarized", "better_weight/latent2"} <= set(COMMITTED)


@pytest.mark.parametrize("folder", COMMITTED)
def test_the_record_of_every_committed_file_is_read(folder):
    """Earlier versions of this code wrote them, and they must remain readable."""
    found = weights.read(os.path.join(ROOT, folder))
    record = found.record
    assert record.finished and record.dataset.name == "mnist" and record.step > 0
    assert len(record.posterior.KLD) == record.architecture.latent_dim
    assert (found.prior is None) == bool(record.prior is None or record.prior.reason)
    assert records.RunRecord.from_json(as_stored(record)) == record


def test_classes_are_shown_as_they_are_typed():
    assert RECORD.dataset.classes_as_typed == "dog 7"
    assert DatasetRecord("mnist", "0", classes=(0, 10)).classes_as_typed == "0 10"
    assert DatasetRecord("mnist", "0").classes_as_typed == "all"
