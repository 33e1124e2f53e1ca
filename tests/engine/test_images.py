"""Images for several platforms, as registries have them: each image store has its own kind of id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import BuiltFrom, Clock, Ledger
from reconciler.model.observed import Action
from reconciler.planning.planner import plan
from tests.support.harness.adapter import AdapterHarness, Make
from tests.support.harness.image_registry import ImageRegistry
from tests.support.harness.private_engine import IMAGE, standin_tree

ON = Desired(groups={"all": GroupState(on=True)}, generation=1)
ANOTHER = "names another image now"


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    """An archive with the tag `1` of two images for different platforms."""
    with ImageRegistry() as registry:
        registry.tag("1", standin_tree("here"), {"made": "first"}, {"made": "first"})
        yield registry


def compose(registry: ImageRegistry) -> str:
    return f'services: {{web: {{image: "{registry.name}/several:1", init: true}}}}'


async def planned(b: AdapterHarness, ledger: Ledger | None = None) -> str:
    """Return the steps that a full observation leads to."""
    observed = await b.engine.observe(b.stack, full=True)
    return str(plan(b.stack, ON, observed, ledger or Ledger(), Clock(observed.at, observed.at)))


async def ledger_of(b: AdapterHarness) -> Ledger:
    """Return what is recorded when a container is created."""
    observed = await b.look()
    (container,) = observed.containers
    service = b.stack.services["web"]
    return Ledger(made={container.id: BuiltFrom(service.definition, {}, observed.images[service.image])})


@pytest.mark.pitfall(5)
async def test_an_image_for_several_platforms_recreates_nothing(bench: Make, registry: ImageRegistry) -> None:
    b: AdapterHarness = await bench(compose(registry))
    assert (await planned(b)).startswith("web: pull")
    await b.act(Action.PULL, "web")
    await b.running("web")
    assert await planned(b) == "nothing to do"
    # The same tag again, as `docker compose pull` fetches it.
    await b.act(Action.PULL, "web")
    assert await planned(b) == "nothing to do"
    assert await planned(b, await ledger_of(b)) == "nothing to do"
    before = await b.seen("web")
    b.project.person("up", "-d")
    assert (await b.seen("web")).id == before.id


@pytest.mark.pitfall(5)
async def test_a_person_s_container_of_such_an_image_is_left_alone(
    bench: Make, registry: ImageRegistry
) -> None:
    b: AdapterHarness = await bench(compose(registry))
    b.project.person("up", "-d")
    assert await planned(b) == "nothing to do"


@pytest.mark.pitfall(5)
async def test_another_image_behind_the_tag_causes_at_most_one_recreation(
    bench: Make, registry: ImageRegistry
) -> None:
    b: AdapterHarness = await bench(compose(registry))
    await b.act(Action.PULL, "web")
    await b.running("web")
    ledger = await ledger_of(b)
    # Only the image for other machines differs; for containerd's store it is another image here too.
    registry.tag("1", standin_tree("here"), {"made": "first"}, {"made": "later"})
    await b.act(Action.PULL, "web")
    found = await planned(b, ledger)
    assert found == "nothing to do" or ANOTHER in found, found
    # The image for this machine differs.
    registry.tag("1", standin_tree("here"), {"made": "later"}, {"made": "later"})
    await b.act(Action.PULL, "web")
    assert ANOTHER in await planned(b, ledger)
    await b.act(Action.RECREATE, "web")
    for known in (await ledger_of(b), None):
        assert (await planned(b, known)).startswith("web: start")


async def test_an_invalid_image_delays_no_other_service(bench: Make) -> None:
    # Compose accepts all of these; for an address with two slashes the engine redirects without a body.
    b: AdapterHarness = await bench(
        """
        services:
          web: {image: "bed/standin:1", init: true}
          unset: {image: "${NOBODY_SETS_THIS}/app:1"}
          double: {image: "nowhere//app:1"}
          foreign: {image: "b\u00fcro:1"}
          short: {image: "cafe"}
        """
    )
    observed = await b.engine.observe(b.stack, full=True)
    assert observed.complete
    assert set(observed.images) == {IMAGE}
    await b.running("web")


@pytest.mark.pitfall(5)
async def test_an_image_missing_from_the_engine_s_list_is_found(bench: Make, registry: ImageRegistry) -> None:
    b: AdapterHarness = await bench(compose(registry))
    # Of unpacked layers containerd's store keeps no packed ones, and Docker 26.1 then does not list the
    # image.
    registry.tag("1", standin_tree(), {"made": "first"}, {"made": "first"})
    await b.act(Action.PULL, "web")
    assert (await planned(b)).startswith("web: create")
    await b.running("web")
    assert await planned(b) == "nothing to do"
