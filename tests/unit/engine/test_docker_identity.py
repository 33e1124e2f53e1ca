"""Labels that a container inherits from its image do not make it a container of the service."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.engine.docker.http import Refused
from reconciler.engine.docker.observe import Observer
from reconciler.errors import EngineUnavailable
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack

STACK = Stack(name="p", groups={}, services={})
PREFIX = "com.docker.compose."
BASE, COPY = "sha256:aa", "sha256:bb"


def labels(image: str = BASE, **more: str) -> dict[str, str]:
    """The labels that Compose 2.40 writes; ``image`` is the one that the container was created from."""
    found = {"project": "p", "service": "web", "config-hash": "1", "container-number": "1", "image": image}
    found |= {"oneoff": "False", "version": "2.40.3"} | {key.replace("_", "-"): v for key, v in more.items()}
    return {PREFIX + key: value for key, value in found.items()}


def only(*keys: str) -> dict[str, str]:
    return {PREFIX + key: labels()[PREFIX + key] for key in keys}


class Wire:
    """An engine with one container; ``image_labels`` None: its image is gone."""

    def __init__(self, image: str, own: dict[str, str], image_labels: dict[str, str] | None) -> None:
        self.image, self.labels, self.image_labels = image, own, image_labels
        self.asked: list[str] = []
        self.trouble: Exception | None = None

    async def get(self, path: str, **_: object) -> Any:
        if path == "/images/json":
            return []
        if path.startswith("/images/"):
            self.asked.append(path)
            if self.trouble is not None:
                raise self.trouble
            if self.image_labels is None:
                raise Refused(404, "no such image")
            return {"Id": self.image, "Config": {"Labels": self.image_labels or None}}
        entry = {"Id": "1", "Names": ["/x"], "Labels": self.labels, "ImageID": self.image, "State": "running"}
        if path == "/containers/json":
            return [entry]
        config = {"Labels": self.labels}
        state = {"Status": "running"}
        return {
            "Id": "1",
            "Name": "/x",
            "Image": self.image,
            "State": state,
            "Config": config,
            "HostConfig": {},
        }


async def look(wire: Wire, times: int = 1) -> ObservedState:
    eyes = Observer(wire)  # type: ignore[arg-type]
    for _ in range(times):
        observed = await eyes.refresh(STACK, full=True)
    return observed


@pytest.mark.parametrize(
    ("image", "own", "inherited", "ours", "questions"),
    [
        # Created by Compose: from an image without labels, from one of a commit, and from a commit that took
        # over the name of the image it was created from: then all labels but the image's id are the same.
        (BASE, labels(), {}, True, 0),
        (COPY, labels(COPY, config_hash="2"), labels(), True, 0),
        (COPY, labels(COPY), labels(), True, 0),
        # The same if the engine shows another id than Compose wrote (containerd's image store).
        ("sha256:cc", labels(COPY), labels(), True, 1),
        ("sha256:cc", labels(COPY), {}, True, 1),
        ("sha256:cc", labels(COPY), only("project", "service"), True, 1),
        # Started by hand from a commit, unchanged and with one label overridden.
        (COPY, labels(), labels(), False, 1),
        (COPY, labels(container_number="2"), labels(), False, 1),
        (COPY, labels(service="db"), labels(), False, 1),
        (COPY, labels(config_hash="2"), labels(), False, 1),
        (COPY, labels() | {"note": "mine"}, labels(), False, 1),
        (COPY, labels(), labels(project="other"), False, 1),
        # From an image that was built with labels.
        (BASE, only("project", "service"), only("project", "service"), False, 1),
        (BASE, only("project", "service", "oneoff"), only("project", "service", "oneoff"), False, 1),
        # Labelled by hand, and by a Compose that does not write the image's id.
        (BASE, only("project", "service"), {}, True, 1),
        (BASE, only("project", "service", "config-hash"), {}, True, 1),
        (BASE, only("project", "service", "config-hash"), only("project", "service"), True, 1),
        # A copy of a copy; a commit whose image was removed since.
        ("sha256:cc", labels(), labels(), False, 1),
        (COPY, labels(), None, False, 1),
        (BASE, labels(), None, True, 0),
    ],
)
async def test_only_containers_with_labels_of_their_own_count(
    image: str, own: dict[str, str], inherited: dict[str, str] | None, ours: bool, questions: int
) -> None:
    wire = Wire(image, own, inherited)
    observed = await look(wire, times=3)
    assert observed.complete
    assert [c.id for c in observed.containers] == (["1"] if ours else [])
    assert ("x" in observed.foreign) == (not ours)
    assert ("image only" in "".join(observed.notes)) == (not ours)
    assert len(wire.asked) == questions


async def test_a_failed_inspection_of_an_image_is_repeated() -> None:
    wire = Wire(COPY, labels(), labels())
    for trouble in (Refused(500, "no"), EngineUnavailable("silent", "engine_silent"), ValueError("no JSON")):
        wire.trouble = trouble
        assert not (await look(wire)).complete
    wire.trouble = None
    observed = await look(wire)
    assert observed.complete
    assert observed.containers == ()
