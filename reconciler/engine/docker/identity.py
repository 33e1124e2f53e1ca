"""Separates the project's service containers from containers that inherited its labels from their image.

`docker commit` copies the labels of a container into the new image, and an image may be built with `LABEL
com.docker.compose.project=…`. A container of such an image has the labels of a service without being one: it
does not belong to the project, whatever its name. The engine merges both sources into one set of labels, so
they are distinguished by comparison with the image's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import (
    CONFIG_HASH,
    IMAGE,
    PROJECT,
    SERVICE,
    Json,
    claims,
    id_of,
    labels_of,
    name_of,
)
from reconciler.errors import EngineUnavailable


@dataclass(slots=True)
class Sorted:
    """The containers whose labels name a service of the project, by id.

    ``ours`` were created as services, ``strangers`` (id to name) have their labels from their image. For
    ``unsure`` this is unknown at present: the engine did not describe their image.
    """

    ours: dict[str, Json] = field(default_factory=dict)
    strangers: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)

    def notes(self) -> tuple[str, ...]:
        """Return warnings about the strangers."""
        if not self.strangers:
            return ()
        names = sorted(self.strangers.values())
        shown = ", ".join((*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else ())))
        why = "image only (`docker commit`, or LABEL in a Dockerfile)"
        if len(names) == 1:
            return (f"container {shown} has this project's labels from its {why}: it is not managed",)
        return (f"containers {shown} have this project's labels from their {why}: they are not managed",)


class Identity:
    """Caches by container whether its labels are its own: neither they nor its image ever change.

    A container created by Docker Compose needs no request (see ``made_by_compose``); for others the image is
    inspected once.
    """

    def __init__(self, http: DockerHttp) -> None:
        self._http = http
        self._own: dict[str, bool] = {}

    async def sort(self, entries: Iterable[Json], project: str) -> Sorted:
        """Sort the entries of one list call. A single container never causes an error.

        Raises:
            EngineUnavailable: a request for an image failed, other than by a time-out.
        """
        found = Sorted()
        claimants = {id: entry for entry in entries if (id := id_of(entry)) and claims(entry, project)}
        self._own = {id: own for id, own in self._own.items() if id in claimants}
        for id, entry in claimants.items():
            own = self._own.get(id)
            if own is None:
                own = await self._has_own_labels(entry)
            if own is None:
                found.unsure.add(id)
                continue
            self._own[id] = own
            if own:
                found.ours[id] = entry
            else:
                found.strangers[id] = name_of(entry) or id[:12]
        return found

    async def _has_own_labels(self, entry: Json) -> bool | None:
        image = entry.get("ImageID")
        if not isinstance(image, str) or not image:
            # The engine does not name the image, so there is nothing to compare with.
            return True
        labels = labels_of(entry)
        if made_by_compose(labels, image):
            return True
        try:
            seen = await self._http.get(f"/images/{quote(image, safe=':')}/json")
        except Refused as error:
            # The image was removed by force. A container that is not proven to belong here is not touched.
            return False if error.status == 404 else None
        except EngineUnavailable as error:
            if error.reason != "engine_silent":
                raise
            return None
        except (ValueError, RecursionError):
            return None
        config = seen.get("Config") if isinstance(seen, Mapping) else None
        return set_at_creation(labels, labels_of(config) if isinstance(config, Mapping) else {})


def made_by_compose(labels: Mapping[str, str], image: str) -> bool:
    """Whether the labels name the image that the container was created from.

    Compose labels each container with the id of its image. An image can't contain its own id, since that is a
    digest of its content: this label was set when the container was created.
    """
    return bool(image) and labels.get(IMAGE, "").removeprefix("sha256:") == image.removeprefix("sha256:")


def set_at_creation(labels: Mapping[str, str], inherited: Mapping[str, str]) -> bool:
    """Whether the container was created as this service, given the labels of its image (``inherited``).

    The most specific label decides. Compose 2.30 to 5.x set the id of the image, which no image can contain.
    Older versions and other tools set the hash of the definition. A container labelled by hand has project
    and service only. A single label overridden by `docker run --label` changes nothing.
    """
    for label in (IMAGE, CONFIG_HASH):
        if label in labels:
            return labels[label] != inherited.get(label)
    return all(labels[label] != inherited.get(label) for label in (PROJECT, SERVICE) if label in labels)
