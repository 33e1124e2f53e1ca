"""Sends commands for single containers, and reads credentials, through the Docker SDK in threads.

The only module that imports the SDK. Runs its blocking calls in threads with deadlines. Translates its errors
into those of ``reconciler.errors``, or into ``Refused`` with the engine's own message.
"""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests
from docker import APIClient, auth
from docker.credentials import Store, StoreError
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig

from reconciler.engine.docker.address import Address
from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import repository_and_tag
from reconciler.engine.docker.thread_pool import DaemonThreadPool, NotStarted
from reconciler.engine.error_reasons import truncate
from reconciler.errors import EngineUnavailable, OutcomeUnknown, StepFailed
from reconciler.model.observed import Action, Command

_DEADLINE = 60.0
"""Seconds for a command that does not wait for a container's processes."""
_STOP_MARGIN = 20.0
"""Seconds in addition to the grace period: the engine kills, cleans up and responds in them."""
_CREDENTIALS_WITHIN = 30.0
_MOST_COMMANDS = 32

T = TypeVar("T")


class ContainerCommands:
    """Calls of the SDK, each in a thread and with a deadline."""

    def __init__(self, http: DockerHttp) -> None:
        self._http = http
        self._clients = _Clients(http.address)
        self._threads = DaemonThreadPool("docker-command", _MOST_COMMANDS)

    async def execute(self, command: Command) -> None:
        """START, STOP, KILL, UNPAUSE, RENAME, UPDATE or REMOVE one container.

        Raises:
            Refused: the engine refused.
            EngineUnavailable: nothing was sent.
            OutcomeUnknown: sent, but no response in time.
        """
        within = _DEADLINE
        if command.action is Action.STOP:
            within = math.ceil(command.grace) + _STOP_MARGIN
        await self._call(lambda client: _carry_out(client, command), within)

    async def wait_until_removed(self, container: str) -> None:
        """Wait until another client's removal of the container is done; errors as for ``execute``."""
        await self._call(lambda client: client.wait(container, condition="removed"), _DEADLINE)

    async def credentials(self, image: str, config: Path) -> dict[str, str]:
        """Return the header with which the engine pulls this image, from the user's docker ``config.json``.

        Calls the credential helpers that the file names.

        Raises:
            StepFailed: a helper or the file can't be used.
        """
        try:
            return await self._threads.run(lambda: _credentials(image, config), _CREDENTIALS_WITHIN)
        except (DockerException, OSError, ValueError, TimeoutError, NotStarted) as error:
            why = truncate(str(error)) or "the helper does not answer"
            raise StepFailed(f"no credentials to pull {image}: {why}", "image_unavailable") from error

    async def all_credentials(self, config: Path) -> str:
        """Return a ``config.json`` with all credentials of this user, for ``use_api_socket``.

        Raises:
            StepFailed: a helper or the file can't be used.
        """
        try:
            return await self._threads.run(lambda: _all_credentials(config), _CREDENTIALS_WITHIN)
        except (DockerException, StoreError, OSError, ValueError, TimeoutError, NotStarted) as error:
            why = truncate(str(error)) or "the helper does not answer"
            raise StepFailed(f"no credentials for use_api_socket: {why}", "credentials_missing") from error

    def close(self) -> None:
        """Close idle connections; running calls end by themselves, in threads that delay no exit."""
        self._clients.close()

    async def _call(self, work: Callable[[APIClient], T], within: float) -> T:
        api = await self._http.negotiate()
        try:
            return await self._threads.run(lambda: work(self._clients.client(api)), within)
        except NotStarted as error:
            message = f"no call to the engine came through within {within:.0f} s"
            raise EngineUnavailable(message, "engine_silent") from error
        except TimeoutError as error:
            self._http.api = ""
            raise OutcomeUnknown(f"the engine did not answer within {within:.0f} s") from error
        except APIError as error:
            raise Refused(error.status_code or 500, str(error.explanation or error)) from error
        except (requests.RequestException, DockerException, OSError) as error:
            self._http.api = ""
            message = f"the connection to the engine broke: {truncate(str(error))}"
            raise _unsent(error) or OutcomeUnknown(message) from error


class _Clients:
    """Holds the SDK's client: created on first use, and again for another API version."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._current: tuple[str, APIClient] | None = None
        self._making = threading.Lock()

    def client(self, api: str) -> APIClient:
        """Return a client for this API version."""
        with self._making:
            if self._current is None or self._current[0] != api:
                self._current = (api, self._make(api))
            return self._current[1]

    def close(self) -> None:
        """Close idle connections."""
        with self._making:
            if self._current:
                self._current[1].close()
            self._current = None

    def _make(self, api: str) -> APIClient:
        folder = self._address.certificates
        tls: TLSConfig | bool = False
        if folder:
            tls = TLSConfig(
                client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
                ca_cert=str(folder / "ca.pem"),
                verify=self._address.verify,
            )
        client = APIClient(
            base_url=self._address.url,
            version=api,
            timeout=math.ceil(_DEADLINE),
            tls=tls,
            max_pool_size=_MOST_COMMANDS,
        )
        # An engine that shuts down accepts no new connection, but still obeys on existing ones while it stops
        # its containers. A container started then can never be started again, so each command uses a new
        # connection.
        client.headers["Connection"] = "close"
        return client


def _carry_out(client: APIClient, command: Command) -> None:
    id = command.container
    match command.action:
        case Action.START:
            client.start(id)
        case Action.KILL:
            client.kill(id)
        case Action.UNPAUSE:
            client.unpause(id)
        case Action.RENAME:
            client.rename(id, command.value)
        case Action.UPDATE:
            name, _, most = command.value.partition(":")
            policy: Any = {"Name": name, "MaximumRetryCount": int(most or 0)}
            client.update_container(id, restart_policy=policy)
        case Action.STOP:
            client.stop(id, timeout=math.ceil(command.grace))
        case Action.REMOVE:
            # Volumes stay: no code here ever removes data.
            client.remove_container(id, v=False, force=False)
        case _:
            message = f"{command.action} is not an order to one container"
            raise ValueError(message)


def _credentials(image: str, config: Path) -> dict[str, str]:
    if not config.exists():
        return {}
    registry, _ = auth.resolve_repository_name(repository_and_tag(image)[0])
    found = auth.resolve_authconfig(auth.load_config(config_path=str(config)), registry)
    return {"X-Registry-Auth": auth.encode_header(found).decode()} if found else {}


def _all_credentials(config: Path) -> str:
    known: dict[str, Any] = {}
    if config.exists():
        loaded = auth.load_config(config_path=str(config))
        listed: Mapping[str, Any] = loaded.auths
        if loaded.creds_store:
            listed = Store(loaded.creds_store).list()  # type: ignore[no-untyped-call]
        names = dict.fromkeys([*(listed or {}), *loaded.cred_helpers])
        known = {name: auth.resolve_authconfig(loaded, name) or {} for name in names}
    # In the docker CLI's file format: sorted, one tab for each level.
    entries = {name: _saved(credentials) for name, credentials in sorted(known.items())}
    return json.dumps({"auths": entries}, indent="\t", ensure_ascii=False)


def _saved(credentials: Mapping[str, Any]) -> dict[str, str]:
    found = {key.lower(): value for key, value in credentials.items()}
    saved = {}
    user, password = found.get("username") or "", found.get("password") or ""
    if user or password:
        saved["auth"] = base64.b64encode(f"{user}:{password}".encode()).decode()
    if found.get("identitytoken"):
        saved["identitytoken"] = found["identitytoken"]
    return saved


def _unsent(error: BaseException) -> EngineUnavailable | None:
    """Return the error for a call that did not reach the engine; None if it may have."""
    cause: object = error
    seen: set[int] = set()
    waiting: list[object] = [cause]
    while waiting:
        cause = waiting.pop()
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, (FileNotFoundError, ConnectionRefusedError, PermissionError)):
            return EngineUnavailable(f"the engine can't be reached: {cause.strerror}")
        waiting += [*cause.args, cause.__cause__, cause.__context__]
    return None
