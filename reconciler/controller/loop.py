"""The reconcile loop: wake, observe, decide, act, publish. The only code that changes containers.

Level-triggered: the wake-up reason never decides what a pass does, and no pass depends on the progress of
an earlier one. After a crash, a lost event or a restart of the engine the next pass starts from the
observed state. *What* to do is decided by ``plan``, not here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from reconciler.controller.early_probe import Prober, ProbeTarget
from reconciler.controller.executor import Concurrency, Executor
from reconciler.controller.log_capture import Keep, LogCapturingEngine
from reconciler.controller.progress import Progress, Tracker
from reconciler.controller.snapshot import EngineView, Snapshot, SnapshotPublisher
from reconciler.controller.snapshot_builder import Inputs, build
from reconciler.controller.step_outcomes import StepContext, StepTracker, ineffective_step
from reconciler.engine import Engine
from reconciler.errors import EngineError, EngineUnavailable, Mistake
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.ledger_updates import record_start_time
from reconciler.model.observed import (
    Action,
    Container,
    EngineInfo,
    Health,
    LeftBehind,
    ObservedState,
    State,
    Usage,
)
from reconciler.model.stack import Stack
from reconciler.planning import project_rename, status
from reconciler.planning.planner import Plan, Step, plan
from reconciler.planning.record_observation import mark_settled, record_observation

log = logging.getLogger(__name__)

AT_LEAST = 0.01
"""Seconds between a pass and the next one by time."""

_OVERTAKES = frozenset({Action.STOP, Action.RECREATE, Action.REMOVE})
"""Actions that cancel running hooks instead of waiting for them."""

RECONNECT = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach an unreachable engine; the last one repeats."""

MAX_LOOK_ERRORS = 100
"""Distinct errors of failed observations to remember; an ever-changing text must not grow the set."""

LASTING = 1.0
"""Seconds after which an event stream counts as working."""


class Hooks(NamedTuple):
    """Callbacks of the loop to the rest of the daemon; each returns at once.

    ``ledger``: the ledger changed. ``ended``: a generation ended. ``stepped``: a step was sent (error None,
    third argument False) or returned (True). ``passed``: a pass ended (its seconds, its outcome) and its
    snapshot is published. ``found``: a periodic resync found this number of drifts that no event reported.
    ``heartbeat``: the loop is alive, after a pass or after ``LoopTimings.beat`` seconds without one; the
    watchdog depends on this callback only.
    """

    ledger: Callable[[Ledger], None] = lambda _: None
    ended: Callable[[Progress], None] = lambda _: None
    stepped: Callable[[Step, EngineError | None, bool], None] = lambda *_: None
    passed: Callable[[float, str], None] = lambda *_: None
    found: Callable[[int], None] = lambda _: None
    heartbeat: Callable[[], None] = lambda: None


Look = Callable[[ObservedState, Stack], Awaitable[ObservedState]]
"""Adds the host's state to an observation of the engine; never raises."""


class LoopTimings(NamedTuple):
    """``resync``: seconds between passes that inspect everything. ``probes``: concurrent early probes.

    ``beat``: seconds between heartbeats of an idle loop.
    """

    resync: float = 60.0
    limits: Concurrency = Concurrency()
    probes: int = 2
    beat: float = float("inf")


class Loop:
    """Converges an engine to the current target until it is stopped.

    ``wall`` returns the time of day in seconds since the epoch, ``chance`` a number in [0, 1) for jitter;
    waits use the event loop's monotonic clock. ``look_further`` adds the host's state to each observation;
    ``keep`` saves the log of a container that exited or is about to be removed.
    """

    def __init__(
        self,
        engine: Engine,
        snapshots: SnapshotPublisher,
        *,
        wall: Callable[[], float],
        chance: Callable[[], float],
        ledger: Ledger | None = None,
        settings: LoopTimings = LoopTimings(),  # noqa: B008 - immutable
        hooks: Hooks = Hooks(),  # noqa: B008 - immutable
        look_further: Look | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._engine = engine
        self._look_further = look_further
        self._farewell = LogCapturingEngine(keep, engine.act, lambda: self._observed.containers)
        self._snapshots = snapshots
        self._wall = wall
        self._chance = chance
        self._settings = settings
        self._hooks = hooks
        self._ledger = ledger or Ledger()
        self._target: AcceptedState | None = None
        self._observed = ObservedState(complete=False)
        self._plan = Plan(complete=False)
        self._tracker = Tracker(Progress(generation=0))
        self._observed_generation = 0
        self._engine_view = EngineView(error="not contacted yet", since=wall())
        self._errors: tuple[Mistake, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._usage: Mapping[str, Usage] = {}
        self._probed: set[str] = set()
        self._look_errors: set[str] = set()
        self._dispatch = StepTracker()
        self._woken = asyncio.Event()
        self._full = True
        self._stopping = False
        self.first_pass = asyncio.Event()
        self._executor = Executor(self._farewell.act, limits=settings.limits, done=self._landed)
        self._prober = Prober(engine.probe, self._probe_succeeded, slots=settings.probes)

    # --- input -----------------------------------------------------------------------------------

    def set_target(self, target: AcceptedState, *, ended: Progress | None = None) -> None:
        """Set the desired state. The snapshot shows it at once, with the last observed state.

        ``ended``: the final progress of this generation, if an earlier run of the daemon ended it.
        """
        before, self._target = self._target, target
        desired = target.desired
        if before is None or before.desired.generation != desired.generation:
            if before is not None and self._tracker.current.state == "progressing":
                over = replace(self._tracker.current, state="superseded", ended_at=self._wall())
                self._snapshots.publish_outcome(over)
                self._hooks.ended(over)
            begun = ended or Progress(generation=desired.generation, began_at=target.accepted_at)
            self._tracker = Tracker(begun)
            if ended is not None and ended.state in {"converged", "degraded"}:
                self._observed_generation = desired.generation
        if before is None or before.stack.name != target.stack.name:
            self._observed = ObservedState(complete=False)
        self._replan(self._observed)
        if self._plan.complete:
            self._track(fresh=False)
        self.publish()
        self.wake("desired state")

    def report_mistakes(self, errors: Sequence[Mistake], warnings: Sequence[str] = ()) -> None:
        """Set the mistakes in the files; the loop continues to converge to the last valid state."""
        if (tuple(errors), tuple(warnings)) != (self._errors, self._warnings):
            self._errors, self._warnings = tuple(errors), tuple(warnings)
            self.publish()

    def take_usage(self, usage: Mapping[str, Usage]) -> None:
        """Set the last sample of memory and CPU, by container id."""
        self._usage = usage
        self.publish()

    def wake(self, why: str, *, full: bool = False) -> None:
        """Request a pass; requests during a pass are merged into one further pass."""
        log.debug("woken", extra={"why": why})
        self._full = self._full or full
        self._woken.set()

    @property
    def ledger(self) -> Ledger:
        """The current ledger."""
        return self._ledger

    @property
    def observed(self) -> ObservedState:
        """The last observation of the engine."""
        return self._observed

    @property
    def target(self) -> AcceptedState | None:
        """The current desired state; None before the first valid one."""
        return self._target

    # --- passes ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run passes until ``stop`` is called or the task is cancelled."""
        listener = asyncio.create_task(self._listen(), name="events")
        try:
            while not self._stopping:
                # Clear before observing: an event during the observation requests another pass.
                self._woken.clear()
                due = await self._pass()
                await self._rest(due)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await self._prober.close()

    async def stop(self, seconds: float = 3.0) -> None:
        """End ``run`` after the current pass, and wait at most ``seconds`` for steps in flight."""
        self._stopping = True
        self._woken.set()
        await self._executor.drain(seconds)

    async def _rest(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._hooks.heartbeat()
            until = min(due, loop.time() + self._settings.beat)
            try:
                async with asyncio.timeout_at(until):
                    await self._woken.wait()
            except TimeoutError:
                if until < due:
                    continue
                self._resync = due >= self._next_resync
                self._full = self._full or self._resync
            return

    async def _pass(self) -> float:
        """Run one pass; return the time (event loop's clock) of the next one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        full, self._full = self._full, False
        resync, self._resync = self._resync, False
        if full:
            self._next_resync = began + self._settings.resync
        target = self._target
        if target is None:
            self.publish()
            self.first_pass.set()
            return self._next_resync
        outcome = await self._look(target, full=full)
        if self._target is not target:
            # The target changed while observing: the observation may lack parts of it, so observe again.
            self._full = self._full or full
            self._woken.set()
        elif outcome == "observed":
            known = set(self._plan.drifts)
            outcome = self._decided()
            missed = set(self._plan.drifts) - known if resync else ()
            if missed:
                self._hooks.found(len(missed))
        self.publish()
        self.first_pass.set()
        self._hooks.passed(loop.time() - began, outcome)
        if outcome in {"unreachable", "incomplete"}:
            self._full = True
            return loop.time() + self._patience()
        moments = [self._next_resync, self._plan.due, self._observed.again]
        due = min(moment for moment in moments if moment is not None)
        # Clocks differ slightly; without a minimum a moment just ahead causes a tight loop.
        return max(due, loop.time() + AT_LEAST)

    _next_resync = 0.0
    _resync = False
    _failures = 0
    _unplanned = 0
    _unforeseen = ""
    _unheard = ""

    def _patience(self) -> float:
        return RECONNECT[min(self._failures, len(RECONNECT)) - 1]

    async def _look(self, target: AcceptedState, *, full: bool) -> str:
        try:
            observed = await self._engine.observe(target.stack, full=full)
            if project_rename.is_new_name(target.stack, self._ledger):
                observed = replace(observed, left=await self._left_behind(target, full=full))
            if self._look_further is not None:
                observed = await self._look_further(observed, target.stack)
        except EngineUnavailable as error:
            self._failures += 1
            self._unreachable(str(error))
            return "unreachable"
        except EngineError as error:
            if self._is_new_look_error(error):
                log.warning("observing the engine failed", extra={"error": str(error)})
            observed = ObservedState(complete=False)
        except Exception as error:
            # An adapter's bug must not end the loop.
            if self._is_new_look_error(error):
                log.exception("observing the engine failed unexpectedly")
            observed = ObservedState(complete=False)
        if not self._engine_view.reachable:
            self._engine_view = replace(self._engine_view, reachable=True, since=self._wall(), error="")
            log.info("the engine answers")
        if not observed.complete:
            self._failures += 1
            return "incomplete"
        self._failures = 0
        self._look_errors.clear()
        self._observed = self._with_probes(observed)
        return "observed"

    def _is_new_look_error(self, error: Exception) -> bool:
        """Whether to log the error: once for each distinct one until an observation succeeds."""
        if len(self._look_errors) >= MAX_LOOK_ERRORS:
            self._look_errors.clear()
        before = len(self._look_errors)
        self._look_errors.add(f"{type(error).__name__}: {error}")
        return len(self._look_errors) > before

    async def _left_behind(self, target: AcceptedState, *, full: bool) -> tuple[LeftBehind, ...]:
        known = self._ledger.renaming
        if known is not None and not known.held and self._observed.complete and not full:
            # It only causes a warning, possibly for a long time: check again at the next resync.
            return self._observed.left
        former = project_rename.former_name(target.stack, self._ledger)
        return await self._engine.left_behind(target.stack, former)

    def _unreachable(self, why: str) -> None:
        view = self._engine_view
        if view.reachable or view.error == "not contacted yet":
            log.warning("the engine can't be reached", extra={"error": why})
            self._engine_view = replace(view, reachable=False, since=self._wall(), error=why)
        self._prober.follow(())

    def _decided(self) -> str:
        try:
            outcome = self._decide()
        except Exception as error:
            # The observation or the ledger has an unexpected shape. The next observation may be valid.
            self._unplanned += 1
            self._failures = self._unplanned
            told = f"{type(error).__name__}: {error}"
            if told != self._unforeseen:
                log.exception("a plan can't be made of what was observed")
            self._unforeseen = told
            return "incomplete"
        self._unforeseen, self._unplanned = "", 0
        return outcome

    def _decide(self) -> str:
        """Update the ledger, plan, send steps. Returns ``idle``, ``waiting`` or ``acting``."""
        target = self._target
        assert target is not None
        now = self._now()
        before = self._ledger
        self._ledger = record_observation(
            target.stack, target.desired, self._observed, before, now, chance=self._chance()
        )
        self._ledger = project_rename.record_rename(
            target.stack, target.desired, self._observed, self._ledger, now
        )
        self._farewell.capture(before, self._ledger)
        self._replan(self._observed)
        self._ledger = mark_settled(self._ledger, self._plan)
        self._dispatch.forget(self._plan)
        self._executor.give_up(self._is_overtaken)
        chosen = self._executor.admit_steps(self._plan.steps, self._observed.began)
        steps = tuple(step for step in chosen if self._has_effect(step, now))
        if self._stopping:
            steps = ()
        for step in steps:
            self._before_sending(target, step, now)
        if self._ledger is not before:
            self._hooks.ledger(self._ledger)
        if steps:
            self._executor.send(steps, target.stack)
        self._follow_starts(target.stack, now)
        self._track()
        if steps:
            return "acting"
        return "idle" if self._snapshots.current.converged else "waiting"

    def _replan(self, observed: ObservedState) -> None:
        target = self._target
        assert target is not None
        self._plan = plan(target.stack, target.desired, observed, self._ledger, self._now())

    def _now(self) -> Clock:
        return Clock(self._wall(), asyncio.get_running_loop().time())

    # --- steps -----------------------------------------------------------------------------------

    def _is_overtaken(self, step: Step) -> bool:
        """Whether the current plan requires something else of the service than the step in flight."""
        verdict = self._plan.verdict(step.key)
        if verdict is None or not verdict.wanted:
            return True
        return verdict.step is not None and verdict.step.action in _OVERTAKES

    def _has_effect(self, step: Step, now: Clock) -> bool:
        """Whether to send the step; False if the engine reported it done before and nothing changed."""
        if not self._dispatch.had_no_effect(step, self._plan):
            return True
        self._ledger = ineffective_step(self._ledger, step, self._plan, now, chance=self._chance())
        # Plan again: the back-off may now be something to wait for.
        self.wake("no effect")
        return False

    def _before_sending(self, target: AcceptedState, step: Step, now: Clock) -> None:
        grounds = StepContext(target.stack, target.desired, self._observed, self._plan)
        self._ledger = self._dispatch.before_send(self._ledger, step, grounds, now)
        self._tracker.started(step, now.wall)
        self._hooks.stepped(step, None, False)
        log.info("step", extra={"service": step.service, "action": str(step.action), "why": step.why})

    def _landed(self, step: Step, error: EngineError | None) -> None:
        """Record the result of a step."""
        now = self._now()
        self._ledger = self._dispatch.after_send(self._ledger, step, error, now, chance=self._chance())
        if error is not None:
            told = {"service": step.service, "action": str(step.action), "error": str(error)}
            log.warning("step failed", extra=told)
        self._tracker.finished(step, now.wall, str(error) if error else "")
        self._hooks.stepped(step, error, True)
        self._hooks.ledger(self._ledger)
        self.wake(f"{step.action} of {step.service} came back")

    # --- readiness -------------------------------------------------------------------------------

    def _with_probes(self, observed: ObservedState) -> ObservedState:
        if not self._probed:
            return observed
        self._probed &= {c.run for c in observed.containers if c.health is Health.STARTING}
        if not self._probed:
            return observed
        return replace(
            observed,
            containers=tuple(
                replace(c, probed=True) if c.run in self._probed else c for c in observed.containers
            ),
        )

    def _follow_starts(self, stack: Stack, now: Clock) -> None:
        candidates = []
        for verdict in self._plan.leaves:
            container = verdict.container
            if (
                container is not None
                and verdict.wanted
                and container.state is State.RUNNING
                and container.health is Health.STARTING
                and container.check
                and not container.probed
            ):
                check = stack.services[container.service].check
                candidates.append(
                    ProbeTarget(
                        container,
                        max(0.0, now.wall - container.started_at),
                        check.interval if check else 30.0,
                        check.timeout if check else 30.0,
                        self._ledger.brackets.get(container.service),
                    )
                )
        self._prober.follow(candidates)

    def _probe_succeeded(self, container: Container, not_at: float, at: float) -> None:
        self._probed.add(container.run)
        self._ledger = record_start_time(self._ledger, container.service, not_at=not_at, at=at)
        self._hooks.ledger(self._ledger)
        self.wake(f"{container.service} is ready")

    # --- snapshot --------------------------------------------------------------------------------

    def _track(self, *, fresh: bool = True) -> None:
        """Update the generation's progress from the plan; only a fresh plan can end the generation."""
        target = self._target
        assert target is not None
        now = self._now()
        summaries = status.summarise(self._plan, self._ledger, self._executor.in_flight)
        left = status.time_left(self._plan, self._ledger, summaries, now)
        before = self._tracker.current.state
        progress = self._tracker.update(self._plan, summaries, left, now.wall, fresh=fresh)
        if progress.state in {"converged", "degraded"}:
            self._observed_generation = target.desired.generation
        if progress.state != before:
            log.info("generation", extra={"generation": progress.generation, "state": progress.state})
            self._hooks.ended(progress)

    def publish(self) -> Snapshot:
        """Publish a snapshot of the current state."""
        target = self._target
        if target is None:
            return self._snapshots.publish(
                replace(
                    Snapshot(at=self._wall(), engine=self._engine_view),
                    errors=self._errors,
                    warnings=self._warnings,
                )
            )
        inputs = Inputs(
            stack=target.stack,
            desired=target.desired,
            observed=self._observed,
            ledger=self._ledger,
            plan=self._plan,
            progress=self._tracker.current,
            engine=self._engine_view,
            now=self._now(),
            in_flight=self._executor.in_flight,
            usage=self._usage,
            errors=self._errors,
            warnings=self._warnings,
            observed_generation=self._observed_generation,
            accepted_at=target.accepted_at,
        )
        return self._snapshots.publish(build(inputs))

    # --- the engine's events ---------------------------------------------------------------------

    async def _listen(self) -> None:
        """Turn events into wake-ups until cancelled. Resubscribe to a lost stream, then observe."""
        attempt = 0
        while True:
            target = self._target
            if target is None:
                await asyncio.sleep(RECONNECT[0])
                continue
            heard = False
            began = asyncio.get_running_loop().time()
            try:
                async for event in self._engine.events(target.stack):
                    if event == "subscribed":
                        heard = True
                        await self._introduce()
                    self.wake(event, full=event == "subscribed")
                    if self._target is not None and self._target.stack.name != target.stack.name:
                        break
            except EngineError as error:
                log.debug("no events", extra={"error": str(error)})
            except Exception as error:
                if str(error) != self._unheard:
                    log.exception("the engine's events can't be read")
                self._unheard = str(error)
            if asyncio.get_running_loop().time() - began > LASTING:
                # A stream that ends at once (cut by a proxy) must not cause 200 requests a second.
                attempt = 0
            if heard:
                # The engine may be gone: without an observation this is noticed only at the next resync.
                self.wake("events lost", full=True)
            await asyncio.sleep(RECONNECT[min(attempt, len(RECONNECT) - 1)])
            attempt += 1

    async def _introduce(self) -> None:
        try:
            info: EngineInfo = await self._engine.info()
        except EngineError:
            return
        self._engine_view = replace(
            self._engine_view,
            kind=info.kind,
            version=info.version,
            compose=info.compose,
            memory=info.memory,
        )
