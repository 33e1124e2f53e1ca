"""The configuration in `docs/recipes/home-assistant.md`, with the requests of Home Assistant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.fixtures.api import a_world, desired

PAGE = Path(__file__).parents[3] / "docs" / "recipes" / "home-assistant.md"


def configurations() -> list[dict[str, Any]]:
    """The YAML blocks of the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # Home Assistant's own tag for values of another file.
    return [YAML(typ="safe").load(block.replace("!secret ", "")) for block in blocks]


async def test_the_switch_reads_and_writes_one_address() -> None:
    (switch,) = configurations()[0]["switch"]
    assert switch["is_on_template"] == "{{ value_json.state == 'on' }}"
    path = switch["resource"].removeprefix("http://box.local:8000")
    async with a_world(desired(1, kafka=True, storage=True)) as world:
        for word in (switch.get("body_on", "ON"), switch.get("body_off", "OFF")):
            written = await world.client.request(switch["method"].upper(), path, content=word.encode())
            read = await world.client.get(path)
            assert (written.is_success, read.status_code) == (True, 200)
            assert read.json()["state"] == word.lower()


async def test_the_sensors_find_their_fields() -> None:
    (rest,) = configurations()[0]["rest"]
    async with a_world(desired(1, kafka=True)) as world:
        status = (await world.client.get(rest["resource"].removeprefix("http://box.local:8000"))).json()
    for sensor in rest["binary_sensor"]:
        fields = re.search(r"value_json\.([\w.]+)", sensor["value_template"])
        assert fields is not None
        value: Any = status
        for name in fields[1].split("."):
            value = value[name]
        assert isinstance(value, bool | str)


async def test_the_command_writes_any_group() -> None:
    command = configurations()[1]["rest_command"]["service_manager_group"]
    path = (
        command["url"].removeprefix("http://box.local:8000").replace("{{ group | urlencode }}", "analytics")
    )
    body = command["payload"].replace("{{ state }}", "on")
    async with a_world() as world:
        headers = {"content-type": command["content_type"]}
        answer = await world.client.put(path, content=body.encode(), headers=headers)
    assert answer.status_code == 202
    assert world.writer.desired.groups["analytics"].force
