"""Resolves Compose files with ``docker compose config``, in a fixed environment and project directory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.engine.compose.alternatives import always_clash, name_is_shared, with_unique_names
from reconciler.engine.compose.discovery import Compose, environment, find_compose
from reconciler.engine.compose.error_advice import NO_SERVICES
from reconciler.engine.compose.error_locations import at_keys, mistakes_in, warnings_in
from reconciler.engine.compose.model_checks import model_mistakes
from reconciler.engine.compose.models_section import lacks_models, with_models
from reconciler.engine.compose.subprocess import ChildTimedOut, ProcessResult, run
from reconciler.engine.compose.values import VariableQuery
from reconciler.errors import InvalidDesiredState, Mistake, NotReadableNow, StepFailed
from reconciler.host.compose_paths import working_directory
from reconciler.host.untrusted import MALFORMED, is_transient
from reconciler.model.json_text import load_json
from reconciler.model.resolved_compose import Resolved
from reconciler.model.secret_values import variables_of

_NO_REMOTE = {"COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"}
_DEADLINE = 30.0
"""Seconds for one call of Compose."""


class DockerComposeResolver:
    """Implements ``reconciler.engine.ComposeResolver`` with the Docker Compose of an environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.environment: Mapping[str, str] = environment(environ)

    async def __call__(
        self,
        files: Sequence[Path],
        directory: Path,
        project: str,
        *,
        without: str = "",
        remote: bool = False,
    ) -> Resolved:
        """Resolve the files; see ``resolve``."""
        return await resolve(files, directory, project, environ=self._environ, without=without, remote=remote)


async def resolve(
    files: Sequence[Path],
    directory: Path,
    project: str,
    *,
    environ: Mapping[str, str] | None = None,
    compose: Compose | None = None,
    without: str = "",
    remote: bool = False,
) -> Resolved:
    """Return what the Compose files mean: interpolated, merged, env files read, all profiles on.

    Takes about 80 ms. ``directory`` is the base of relative paths and the value of ``${PWD}``: the folder in
    which a person calls ``docker compose up``. ``without`` is a path prefix to remove from the result, for
    files that are in a temporary folder. An empty ``project`` leaves the name to Compose. Without ``remote``
    nothing is fetched: a file that is only being looked at must not make this machine connect anywhere.

    Raises:
        InvalidDesiredState: Compose rejects the files; has its message, file and line.
        NotReadableNow: Compose can't be run for a reason that passes, such as a lack of memory.
        StepFailed: Docker Compose is missing (``compose_missing``), or did not end within 30 s
            (``compose_slow``).
    """
    surroundings: Mapping[str, str] = os.environ if environ is None else environ
    chosen = compose if compose else await asyncio.to_thread(find_compose, surroundings)
    surroundings = environment(surroundings) | ({} if remote else _NO_REMOTE)
    common = ["--ansi", "never", "--project-directory", str(directory), "-p", project, "--profile", "*"]
    named = [argument for file in files for argument in ("-f", str(file))]
    folder = working_directory(directory)
    wanted = ["--format", "json"]
    unchecked: list[str] = []
    try:
        model = await _config(chosen, [*named, *common], wanted, surroundings, files, folder)
    except InvalidDesiredState as error:
        if not name_is_shared(str(error)):
            raise
        unchecked = ["--no-consistency"]
        model = await _config(chosen, [*named, *common], [*unchecked, *wanted], surroundings, files, folder)
        if clash := await asyncio.to_thread(always_clash, load_json(model.output)):
            raise InvalidDesiredState(tuple(m._replace(message=clash) for m in error.mistakes)) from None
        distinct = await asyncio.to_thread(with_unique_names, model.output)
        await _config(chosen, ["-f", "-", *common], wanted, surroundings, files, folder, distinct)
    if await asyncio.to_thread(_check, model, files):
        # Up to 5.5, Compose leaves the top-level `models` out of the JSON form only.
        yaml = await _config(chosen, [*named, *common], unchecked, surroundings, files, folder)
        model = model._replace(output=await asyncio.to_thread(with_models, model.output, yaml.output))
    text = model.output.replace(_as_json(without), b"") if without else model.output
    # Hashes of the unresolved files differ from the labels if there is an env_file.
    hashed = await _config(
        chosen, ["-f", "-", *common], [*unchecked, "--hash", "*"], surroundings, files, folder, text
    )
    hashes = _hashes(hashed.output)
    values: dict[str, str | None] = {}
    # In a thread: the resolved model may be megabytes, and nested to any depth.
    variables = await asyncio.to_thread(_variables, text)
    if variables:
        query = await asyncio.to_thread(_query, variables, files, Path(folder))
        with TemporaryDirectory(prefix="service-manager-") as place:
            content = await asyncio.to_thread(query.write, Path(place))
            arguments = ["-f", "-", *common]
            result = await _config(
                chosen, arguments, ["--format", "json"], surroundings, files, folder, content
            )
        found = query.parse(result.output)
        # The value may be PWD, or contain it.
        values = {name: value.replace(without, "") if value else value for name, value in found.items()}
    return Resolved(text, hashes, chosen.version, warnings_in(model.messages), values)


def not_runnable(compose: Compose, error: OSError) -> StepFailed:
    """Return the error for a Compose that can't be executed."""
    return StepFailed(f"{compose.path} can't be run: {error.strerror}", "compose_missing")


def _hashes(output: bytes) -> dict[str, str]:
    pairs = (line.split() for line in output.decode(errors="replace").split("\n"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) > 1}


def _check(result: ProcessResult, files: Sequence[Path]) -> bool:
    """Check what Compose accepts here and would refuse later; return whether it lacks its `models`.

    Raises:
        InvalidDesiredState: with every mistake.
    """
    try:
        model = load_json(result.output)
        if not model.get("services"):
            raise InvalidDesiredState((Mistake(str(files[0]), 0, 0, NO_SERVICES),))
        found = list(model_mistakes(model))
        lacking = lacks_models(model)
    except MALFORMED:
        return False
    if found:
        raise InvalidDesiredState(tuple(at_keys(one.keys, one.message, files) for one in found))
    return lacking


def _variables(text: bytes) -> dict[str, str]:
    try:
        return variables_of(load_json(text))
    except MALFORMED as error:
        raise InvalidDesiredState((Mistake("resolved model", 0, 0, f"can't be used: {error}"),)) from None


def _query(variables: Mapping[str, str], files: Sequence[Path], directory: Path) -> VariableQuery:
    try:
        return VariableQuery(variables, files, directory)
    except MALFORMED:
        # Compose accepted the files, so at least the project's own variables have values.
        return VariableQuery(variables, (), directory)


def _as_json(path: str) -> bytes:
    """Return a path as Compose's JSON contains it: escaped as Go does it, and with each ``$`` doubled."""
    text = json.dumps(path.replace("$", "$$"), ensure_ascii=False)[1:-1]
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


async def _config(
    compose: Compose,
    common: Sequence[str],
    wanted: Sequence[str],
    environ: Mapping[str, str],
    files: Sequence[Path],
    directory: str,
    given: bytes = b"",
) -> ProcessResult:
    try:
        done = await run(
            [compose.path, *common, "config", *wanted],
            environ=environ,
            directory=directory,
            quiet=_DEADLINE,
            limit=_DEADLINE,
            given=given,
            keep_output=True,
        )
    except ChildTimedOut as error:
        message = f"Docker Compose did not resolve the files within {_DEADLINE:.0f} s"
        raise StepFailed(message, "compose_slow") from error
    except OSError as error:
        if is_transient(error):
            message = f"{compose.path} can't be run at the moment: {error.strerror}"
            raise NotReadableNow(message) from error
        raise not_runnable(compose, error) from error
    if done.code:
        raise InvalidDesiredState(await asyncio.to_thread(mistakes_in, done.messages, files))
    if not done.output.strip():
        raise InvalidDesiredState((Mistake(str(files[0]), 0, 0, "Docker Compose resolved it to nothing"),))
    return done
