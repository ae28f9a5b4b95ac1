"""Tells which part of a data set a file or an array is, from its names.

role = roles.of("emnist-letters-test-images-idx3-ubyte.gz")
role.part, role.kind, role.family         # "test", "images", "emnist letters"
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from support.datasets.entries import listed
from support.errors import UserError
from support.text import printable

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
# Words in names that say nothing about the content.
EMPTY_WORDS = {"idx", "ubyte", "int", "arr", "npz", "npy", "csv", "gz", "set", "file", "zip", "tar"}


class Role(NamedTuple):
    """What its names say about an array.

    Attributes:
        part: train, validation or test; empty if the names do not say.
        kind: images or labels; empty if the names do not say.
        family: the other words of the name, which all files of one data set share.
    """

    part: str
    kind: str
    family: str


def of(name: str) -> Role:
    """Returns what a name says, apart from the folders before it."""
    part, kind, rest = "", "", []
    for word in _words(os.path.basename(name)):
        role = ROLE_OF_WORD.get(word, "")
        if role in PARTS and not part:
            part = role
        elif role in (IMAGES, LABELS) and not kind:
            kind = role
        elif word not in EMPTY_WORDS:
            rest.append(word)
    return Role(part, kind, " ".join(rest))


def part_of_folders(name: str) -> str:
    """Returns the part that a folder in a path is named after: train for `train/7/0.png`."""
    for folder in name.split("/")[:-1]:
        part = of(folder).part
        if part:
            return part
    return ""


def _words(name: str) -> list[str]:
    """Splits a name into words: `XTrain_v2` into x, train, v and 2; `xtrain` into x and train."""
    name = re.sub("t10k", "test", name, flags=re.IGNORECASE)
    name = re.sub("idx[0-9]", " ", name, flags=re.IGNORECASE)
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
    """What decides which data set a file or an array belongs to.

    Attributes:
        path: the path of the file, for its folder and for messages.
        family: as in `Role`.
        role: what at most one item of a data set may be, such as (train, images).
    """

    path: str
    family: str
    role: tuple[str, ...]


Item = TypeVar("Item")


def one_data_set(
    items: list[Item], name_of: Callable[[Item], Named], what: str
) -> tuple[list[Item], list[Item]]:
    """Chooses the items of one data set among those of several.

    The files of a data set share a family and are in one folder, unless files of several folders
    make a more complete data set. The most complete data set is chosen; if several are equally
    complete, the one in the topmost folder; if there are several, the one whose family is mnist.

    Args:
        items: the items of all data sets; if two of one data set have the same role, the first of
            them is used.
        name_of: a function that returns the `Named` of an item.
        what: where the items are, for messages.

    Returns:
        The chosen items, one of each role, and the others.

    Raises:
        UserError: several data sets are equally suitable.
    """
    named = [name_of(item) for item in items]
    in_folders: dict[tuple[str, str], list[int]] = defaultdict(list)
    in_families: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(named):
        in_folders[os.path.dirname(item.path), item.family].append(index)
        in_families[item.family].append(index)

    def roles(group: list[int]) -> int:
        return len({named[index].role for index in group})

    def depth(group: list[int]) -> int:
        return min(named[index].path.count("/") for index in group)

    groups = list(in_folders.values())
    if max(map(roles, in_families.values())) > max(map(roles, groups)):
        groups = list(in_families.values())
    complete = max(map(roles, groups))
    groups = [group for group in groups if roles(group) == complete]
    topmost = min(map(depth, groups))
    groups = [group for group in groups if depth(group) == topmost]
    if len(groups) > 1:
        groups = [group for group in groups if named[group[0]].family == "mnist"] or groups
    if len(groups) > 1:
        firsts = [named[group[0]].path for group in groups]
        raise UserError(
            f"{printable(what)} holds {len(groups)} data sets, and these are their first files: "
            f"{listed(firsts, 8)}; give the path of one of these files"
        )
    chosen: dict[tuple[str, ...], int] = {}
    for index in groups[0]:
        chosen.setdefault(named[index].role, index)
    taken = set(chosen.values())
    return (
        [items[index] for index in chosen.values()],
        [item for index, item in enumerate(items) if index not in taken],
    )
