"""The schema of ``stack.yaml`` and ``groups.yaml``: pydantic models and readable error messages.

Checks each file alone; ``validation`` checks references between values and files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from reconciler.desired_state.field_types import (
    CUSTOM_ERROR,
    SWITCH_SCHEMA,
    Dependencies,
    Duration,
    Flag,
    Limit,
    Memory,
    Switch,
    Text,
    Time,
    short_state,
    shown,
    suspension,
)
from reconciler.errors import Mistake
from reconciler.host.yaml_positions import Document, Path
from reconciler.model.desired import GroupState, Suspension

STACK = "stack.yaml"
GROUPS = "groups.yaml"

_PROJECT_NAME = r"[a-z0-9][a-z0-9_-]*"
_DOT_SEGMENTS = frozenset({".", ".."})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class UnhealthyEntry(_Model):
    """The reaction to a service that stays unhealthy."""

    after: Duration = Field(120.0, description="How long a service is unhealthy before the action")
    action: Literal["restart", "recreate", "report"] = Field(
        "restart", description="What to do after that time"
    )
    limit: Limit = Field((3, 1800.0), description="The maximum number of actions in a time")


class PilotEntry(_Model):
    """The requirements of pilot.py, the pipeline on this host."""

    groups: list[str] = Field(default_factory=list, description="Ready when these groups are ready")
    memory: Memory = Field(0, description="Its own memory: 500MB, 1GiB")


class GroupEntry(_Model):
    """One group: services that are switched on and off together."""

    description: Text = Field("", description="A description in one line")
    services: list[str] = Field(min_length=1, description="Names of services in the Compose files")
    memory: Memory = Field(0, description="Estimate for the whole group; MB is 10^6, MiB is 2^20")
    depends_on: Dependencies = Field(
        default_factory=dict,
        description="Groups that this group needs. 'on': must be on, Compose orders the services; "
        "'ready' (also the plain list): no service of this group starts before that group is ready",
    )
    unhealthy: UnhealthyEntry = Field(
        UnhealthyEntry(), description="The reaction to a service that stays unhealthy"
    )
    on_change: Literal["recreate", "report"] = Field(
        "recreate", description="report: a changed definition, image or mounted file waits for `accept`"
    )


class ServiceEntry(_Model):
    """One service, as far as the Compose files leave it open."""

    kind: Literal["job", "service"] = Field(
        description="job: done when it exits with code 0; service: started again whenever it ends"
    )


class StackFile(_Model):
    """stack.yaml: the services and their groups."""

    name: str = Field(pattern=f"^{_PROJECT_NAME}$", description="The Compose project name")
    compose: list[str] = Field(min_length=1, description="Compose files, relative to this file")
    pilot: PilotEntry = Field(PilotEntry(), description="The requirements of pilot.py")
    groups: dict[str, GroupEntry] = Field(min_length=1, description="The groups, in display order")
    services: dict[str, ServiceEntry] = Field(
        default_factory=dict, description="What the Compose files leave open, by service"
    )
    prune: Flag = Field(False, description="Stop and remove containers of services no longer in the files")
    remote_includes: Flag = Field(False, description="Let Compose fetch files named in include and extends")
    restart: Literal["compose", "managed"] = Field(
        "compose", description="managed: the daemon sets restart policies to `no` and starts all in order"
    )


class SuspendEntry(_Model):
    """A suspension of a group, until a time or until it is removed."""

    until: Time | None = Field(None, description="The end; without it, until `resume`")
    reason: Text = Field("", description="The reason, shown in status")


class StateEntry(_Model):
    """The desired state of one group."""

    state: Switch = Field(description="on or off")
    force: Flag = Field(False, description="Do not wait for the groups that this group depends on")
    suspend: Annotated[
        SuspendEntry | None,
        BeforeValidator(suspension),
    ] = Field(None, description="Report drift of this group without repairing it")
    restarted_at: Time | None = Field(None, description="Containers older than this are restarted")
    accepted_at: Time | None = Field(None, description="Changes held back until then are carried out")

    def group_state(self) -> GroupState:
        """Convert the entry to the core's value."""
        suspend = Suspension(self.suspend.until, self.suspend.reason) if self.suspend else None
        return GroupState(
            on=self.state,
            force=self.force,
            suspend=suspend,
            restarted_at=self.restarted_at,
            accepted_at=self.accepted_at,
        )


class GroupsFile(_Model):
    """groups.yaml: the desired state of each group."""

    groups: dict[str, Annotated[StateEntry, BeforeValidator(short_state)]] = Field(
        description="Every group of stack.yaml: on, off, or {state: on, ...}"
    )


_File = TypeVar("_File", bound=_Model)


class ParseResult(NamedTuple, Generic[_File]):
    """A parsed file: either ``value`` or ``mistakes``."""

    value: _File | None
    mistakes: tuple[Mistake, ...]


def read_stack(document: Document) -> ParseResult[StackFile]:
    """Validate ``stack.yaml``; return its value or its mistakes."""
    return _read(document, StackFile)


def read_groups(document: Document) -> ParseResult[GroupsFile]:
    """Validate ``groups.yaml``; return its value or its mistakes."""
    return _read(document, GroupsFile)


def _read(document: Document, model: type[_File]) -> ParseResult[_File]:
    if not isinstance(document.plain, dict):
        keys = ", ".join(model.model_fields)
        message = f"expected keys and values ({keys}), found {shown(document.plain)}"
        return ParseResult(None, (document.mistake((), message),))
    try:
        return ParseResult(model.model_validate(document.plain), ())
    except ValidationError as error:
        return ParseResult(None, tuple(_mistake(document, model, details) for details in error.errors()))


def _mistake(document: Document, model: type[BaseModel], details: ErrorDetails) -> Mistake:
    path = details["loc"]
    kind = details["type"]
    if kind == "extra_forbidden":
        return document.mistake(path, _unknown_key(model, path), key=True)
    if kind == "missing":
        return document.mistake(path[:-1], f"{_dotted(path)} is missing", key=True)
    return document.mistake(path, f"{_dotted(path)}: {_message(details)}")


def _message(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case kind if kind == CUSTOM_ERROR:
            return str(context["message"])
        case "literal_error":
            return (
                f"expected {str(context['expected']).replace(chr(39), '')}, found {shown(details['input'])}"
            )
        case "too_short":
            return "is empty; at least one is needed"
        case "string_pattern_mismatch":
            return (
                f"{shown(details['input'])} can't name a Compose project: only lower-case letters, digits, "
                "- and _, beginning with a letter or digit"
            )
    return f"expected {_EXPECTED.get(details['type'], details['msg'])}, found {shown(details['input'])}"


_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list, as in [one, two]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}


def _unknown_key(model: type[BaseModel], path: Path) -> str:
    key, known = str(path[-1]), _keys_at(model, path[:-1])
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"valid keys: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    for step in path:
        field = model.model_fields.get(str(step))
        inner = next(_models_in(field.annotation), None) if field else None
        if inner is not None:
            model = inner
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def is_project_name(name: str) -> bool:
    """Return whether Compose accepts ``name`` as a project name."""
    return re.fullmatch(_PROJECT_NAME, name) is not None


def name_problem(name: str) -> str:
    """Return what keeps a name of a group from being addressed; empty if nothing does.

    Clients remove segments ``.`` and ``..`` and empty ones from a path before they send it.
    """
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if not name.isprintable():
        return "has a character that can't be shown"
    segments = name.split("/")
    if "" in segments:
        return "begins or ends with a slash, or has two in a row"
    dots = next((segment for segment in segments if segment in _DOT_SEGMENTS), "")
    return f"has the path segment {dots!r}" if dots else ""


def usable_name(text: str) -> str:
    """Return the text as a name without problems: itself if it is one."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    segments = (segment.strip() for segment in shown.split("/"))
    name = "/".join(f"{segment}_" if segment in _DOT_SEGMENTS else segment for segment in segments if segment)
    return name or "group"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schemas of both files by file name, for editors with yaml-language-server."""
    return {name: _file_schema(name, model) for name, model in ((STACK, StackFile), (GROUPS, GroupsFile))}


def _file_schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    for entry in (schema, *schema["$defs"].values()):
        _tidy(entry)
    if model is GroupsFile:
        schema["properties"]["groups"]["additionalProperties"] = {
            "anyOf": [SWITCH_SCHEMA, {"$ref": "#/$defs/StateEntry"}]
        }
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}


def _tidy(entry: dict[str, Any]) -> None:
    # Omit defaults: they are internal values (seconds, bytes), not the notation of the files.
    for name, described in entry.get("properties", {}).items():
        described.pop("title", None)
        described.pop("default", None)
        if name == "suspend":
            described["anyOf"] = [{"type": "boolean"}, {"$ref": "#/$defs/SuspendEntry"}]
