"""Request bodies of this API: strictly typed, with the keys of ``groups.yaml``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from reconciler.model.desired import Suspension


class SuspendBody(BaseModel):
    """Suspends a group until a time, with a reason; without `until`, until the suspension is removed."""

    model_config = ConfigDict(extra="forbid")

    until: str | None = Field(
        None,
        description="RFC 3339 time with a zone",
        examples=["2026-11-24T06:00:00Z"],
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$",
        json_schema_extra={"format": "date-time"},
    )
    reason: str = Field("", max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["camera work"])

    @field_validator("until")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        # The pattern accepts the 99th of June; fromisoformat raises ValueError for it.
        if value is not None and not 0 <= datetime.fromisoformat(value).timestamp() < 253_402_300_800:
            raise ValueError("must be between 1970 and 9999")
        return value

    def suspension(self) -> Suspension:
        """Return it as a value of the model."""
        until = datetime.fromisoformat(self.until).timestamp() if self.until else None
        return Suspension(until, self.reason)


ALTERNATIVES = ("yes or no", "suspension")
"""Names of the forms of ``suspend`` in the locations of pydantic's errors."""


def _alternative(value: object) -> str:
    return ALTERNATIVES[isinstance(value, dict | SuspendBody)]


def _on_or_off(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    # Home Assistant's RESTful switch sends ON and OFF.
    try:
        return validate(value.lower() if isinstance(value, str) else value)
    except ValidationError:
        raise ValueError("must be 'on', 'off', true or false") from None


class GroupBody(BaseModel):
    """Desired state of a group, with the keys of groups.yaml.

    `force` defaults to false. Without `suspend` a suspension stays as it is; false ends it.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"state": "on"},
                {"state": "on", "force": True},
                {"state": "on", "suspend": {"until": "2026-11-24T06:00:00Z", "reason": "camera work"}},
                {"state": "off", "suspend": False},
            ]
        },
    )

    state: Annotated[Literal["on", "off"] | StrictBool, WrapValidator(_on_or_off)]
    force: StrictBool = False
    suspend: Annotated[
        Annotated[StrictBool | None, Tag(ALTERNATIVES[0])] | Annotated[SuspendBody, Tag(ALTERNATIVES[1])],
        Discriminator(_alternative),
        Field(description="true, false, or an object with `until` and `reason`"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: object) -> object:
        # The bare word, also as text/plain, is the default body of Home Assistant's RESTful switch.
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        word = text.strip().lower() if isinstance(text, str) else ""
        return {"state": word} if word in {"on", "off"} else value

    @property
    def on(self) -> bool:
        """Whether the group should be on."""
        return self.state is True or self.state == "on"

    def suspension(self) -> Suspension | None:
        """Return the suspension to set; None: do not suspend."""
        if isinstance(self.suspend, SuspendBody):
            return self.suspend.suspension()
        return Suspension() if self.suspend else None
