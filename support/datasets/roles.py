"""Which part of a data set a file or an array is, judged by its names.

    role = roles.of("emnist-letters-test-images-idx3-ubyte.gz")
    role.part, role.kind, role.family         # "test", "images", "emnist letters"
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from support.datasets.entries import listed, printable
from support.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
IMAGES, LABELS = "images", "labels"
WORDS = {
    TRAIN: "train training trainset trn tr learn",
    VALIDATION: "validation valid validate val dev",
    TEST: "test testing testset tst te t10k",
    IMAGES: "images image imgs img x data pixels pictures features inputs",
    LABELS: "labels label lbls y targets target classes class",
}
ROLE_OF_WORD = {word: role for role, words in WORDS.items() for word in words.split()}
# Parts of names that say nothing about what is inside.
EMPTY_WORDS = {"idx", "ubyte", "int", "arr", "npz", "npy", "csv", "gz", "set", "file", "zip", "tar"}


class Role(NamedTuple):
    """What names say about an array.

    Attributes:
        part: train, validation or test; empty where the names say nothing.
        kind: images or labels; empty where the names say nothing.
        family: the other words of the name, which all files of one data set share.
    """

    part: str
    kind: str
    family: str


def of(name: str) -> Role:
    """Returns what a name says, without the folders before it."""
    part, kind, rest = "", "", []
    for word in _words(os.path.basename(name)):
        role = ROLE_OF_WORD.get(word, "")
        if role in PARTS and not part:
            part = role
        elif role in (IMAGES, LABELS) and not kind:
            kind = role
        elif word not in EMPTY_WORDS and not word.isdigit():
            rest.append(word)
    return Role(part, kind, " ".join(rest))


def part_of_folders(name: str) -> str:
    """Returns the part that the folders of a path name: of `train/7/0.png`, train."""
    for folder in name.split("/")[:-1]:
        part = of(folder).part
        if part:
            return part
    return ""


def _words(name: str) -> list[str]:
    """Splits a name as people do: `XTrain_v2` is x, train, v and 2; `xtrain` is x and train."""
    name = re.sub(r"t10k", "test", name, flags=re.IGNORECASE)
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    found = []
    for word in map(str.lower, words):
        if word[0] in "xy" and ROLE_OF_WORD.get(word[1:]) in PARTS:
            found += [word[0], word[1:]]
        else:
            found += _joined(word)
    return found


def _joined(word: str) -> list[str]:
    """Splits `trainimages` and `testlabels`, which are two words written as one."""
    for first in ("train", "test", "val"):
        rest = word.removeprefix(first)
        if rest != word and ROLE_OF_WORD.get(rest) in (IMAGES, LABELS):
            return [first, rest]
    return [word]


class Named(NamedTuple):
    """A file or array among which those of one data set are chosen.

    Attributes:
        name: its path, for the order and for messages.
        family: of `Role`.
        role: what at most one item of a data set may be, such as (train, images).
    """

    name: str
    family: str
    role: tuple[str, ...]


def one_data_set(items: Iterable[Named], what: str) -> tuple[list[Named], list[Named]]:
    """Chooses the items of one data set among those of several.

    The files of a data set lie in one folder and share a family; where no folder holds a whole
    one, those of all folders are taken together. The most complete set is taken; of several that
    are equally complete, the one in the topmost folder, or the one whose family is mnist.

    Args:
        items: of all data sets, those that are preferred first.
        what: where they are, for messages.

    Returns:
        The chosen items, one of each role, and the others.

    Raises:
        UserError: several data sets are equally good.
    """
    items = list(items)
    in_folders, in_families = defaultdict(list), defaultdict(list)
    for item in items:
        in_folders[os.path.dirname(item.name), item.family].append(item)
        in_families[item.family].append(item)
    candidates = list(in_folders.values())
    complete = max(map(_roles, candidates))
    if max(map(_roles, in_families.values())) > complete:
        candidates = list(in_families.values())
        complete = max(map(_roles, candidates))
    candidates = [group for group in candidates if _roles(group) == complete]
    if len(candidates) > 1:
        depth = min(map(_depth, candidates))
        candidates = [group for group in candidates if _depth(group) == depth]
    if len(candidates) > 1:
        mnist = [group for group in candidates if group[0].family == "mnist"]
        candidates = mnist or candidates
    if len(candidates) > 1:
        firsts = [group[0].name for group in candidates]
        raise UserError(
            f"{printable(what)} holds {len(candidates)} data sets, of which these are the first "
            f"files: {listed(firsts, 8)}: name one of these files"
        )
    chosen: dict[tuple[str, ...], Named] = {}
    for item in candidates[0]:
        chosen.setdefault(item.role, item)
    taken = list(chosen.values())
    return taken, [item for item in items if item not in taken]


def _roles(group: list[Named]) -> int:
    return len({item.role for item in group})


def _depth(group: list[Named]) -> int:
    return min(item.name.count("/") for item in group)
