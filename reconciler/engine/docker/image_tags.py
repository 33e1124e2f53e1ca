"""Caches the image id of each reference until a tag may have moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import full_name, image_named, tags_of
from reconciler.errors import EngineUnavailable


class ImageTags:
    """The images of one engine. ``slots`` limits concurrent requests for single images."""

    def __init__(self, http: DockerHttp, slots: asyncio.Semaphore) -> None:
        self._http = http
        self._slots = slots
        self._tags: dict[str, str] | None = None

    def invalidate(self) -> None:
        """Record that a tag may refer to another image now."""
        self._tags = None

    async def table(self, wanted: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of images by full name and by id; includes all ``wanted`` images that exist.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        tags = self._tags if self._tags is not None else await self._list_images()
        unlisted = [name for name in wanted if full_name(name) not in tags and not image_named(name, tags)]
        ids = await asyncio.gather(*(self._id_of(name) for name in unlisted))
        # Cached with the others, also a missing image: requested once, until tags may have moved.
        tags |= {full_name(name): id for name, id in zip(unlisted, ids, strict=True) if id is not None}
        return tags

    async def _id_of(self, image: str) -> str | None:
        """Return the id of an image that the list leaves out; empty if it does not exist, None if unknown.

        Docker 26.1 with containerd's store lists no image whose layers were unpacked already when it was
        pulled: their packed form is not fetched then, and the image counts as incomplete.
        """
        try:
            async with self._slots:
                seen = await self._http.get(f"/images/{quote(image, safe='/:@')}/json")
        except Refused as error:
            return "" if error.status < 500 else None
        except EngineUnavailable as error:
            if error.reason != "engine_silent":
                raise
            return None
        except ValueError:
            return ""
        # For an invalid reference (`/app:1`) the engine returns something else, and for a short name of
        # hexadecimal digits any image with such an id.
        return image_named(image, tags_of([seen])) if isinstance(seen, dict) and "Id" in seen else ""

    async def _list_images(self) -> dict[str, str]:
        # Set before the request, so that an invalidation during the request counts.
        self._tags = {}
        try:
            images = await self._http.get("/images/json")
            tags = tags_of(images if isinstance(images, list) else [])
        except (Refused, ValueError, RecursionError) as error:
            self._tags = None
            raise EngineUnavailable(f"the engine can't list images: {error}", "list_failed") from error
        except BaseException:
            self._tags = None
            raise
        if self._tags is not None:
            self._tags = tags
        return tags
