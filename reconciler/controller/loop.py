"""The reconcile loop: wake, observe, decide, act, publish. The only code that changes containers.

Level-triggered: the wake-up reason never decides what a pass does, and no pass depends on the progress of
an earlier one. After a crash, a lost event or a restart of the engine the next pass starts from the
observed state. *What* to do is decided by ``plan``, not here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from reconciler.controller.early_probe import Prober, probe_targets, starting_runs, with_probed
from reconciler.controller.engine_observer import EngineObserver, retry_delay
from reconciler.controller.executor import Executor
from reconciler.controller.generation_progress import GenerationProgress
from reconciler.controller.log_capture import LogCapturingEngine, SaveLog
from reconciler.controller.loop_hooks import AddHostState, LoopHooks, LoopTimings
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import Snapshot, SnapshotPublisher
from reconciler.controller.snapshot_builder import Inputs, build
from reconciler.controller.step_outcomes import StepContext, StepTracker, record_ineffective_step
from reconciler.engine import Engine
from reconciler.errors import EngineError, Mistake
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.capabilities import Capability
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.ledger_updates import record_start_time
from reconciler.model.observed import Container, ObservedState, Usage
from reconciler.model.stack import Stack
from reconciler.planning import project_rename
from reconciler.planning.planner import Plan, Step, plan
from reconciler.planning.record_observation import mark_settled, record_observation

log = logging.getLogger(__name__)

MIN_PAUSE = 0.01
"""Minimum seconds between a pass and one that a due time starts."""


class Loop:
    """Converges an engine to the current target until it is stopped.

    ``wall`` returns the time of day in seconds since the epoch, ``chance`` a number in [0, 1) for jitter;
    waits use the event loop's monotonic clock. ``add_host_state`` adds the host's state to each observation;
    ``save_log`` saves the log of a container that exited or is about to be removed.
    """

    def __init__(
        self,
        engine: Engine,
        snapshots: SnapshotPublisher,
        *,
        wall: Callable[[], float],
        chance: Callable[[], float],
        ledger: Ledger | None = None,
        timings: LoopTimings = LoopTimings(),  # noqa: B008 - immutable
        hooks: LoopHooks = LoopHooks(),  # noqa: B008 - immutable
        add_host_state: AddHostState | None = None,
        save_log: SaveLog | None = None,
    ) -> None:
        self._observer = EngineObserver(engine, wall=wall, add_host_state=add_host_state)
        self._log_capture = LogCapturingEngine(save_log, engine.act, lambda: self._observed.containers)
        self._snapshots = snapshots
        self._wall = wall
        self._chance = chance
        self._timings = timings
        self._hooks = hooks
        self._ledger = ledger or Ledger()
        self._target: AcceptedState | None = None
        self._observed = ObservedState(complete=False)
        self._plan = Plan(complete=False)
        self._progress = GenerationProgress(hooks.on_generation_end)
        self._errors: tuple[Mistake, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._usage: Mapping[str, Usage] = {}
        self._probed: set[str] = set()
        self._sent_steps = StepTracker()
        self._plan_failures = 0
        self._plan_error = ""
        self._woken = asyncio.Event()
        self._full = True
        self._resync = False
        self._next_resync = 0.0
        self._stopping = False
        self.first_pass = asyncio.Event()
        self._executor = Executor(self._log_capture.act, limits=timings.limits, done=self._after_step)
        self._can_probe = Capability.PROBE in engine.capabilities
        self._prober = Prober(engine.probe, self._probe_succeeded, slots=timings.probes)

    # --- input -----------------------------------------------------------------------------------

    def set_target(self, target: AcceptedState, *, ended: Progress | None = None) -> None:
        """Set the desired state. The snapshot shows it at once, with the last observed state.

        ``ended``: the final progress of this generation, if an earlier run of the daemon ended it.
        """
        before, self._target = self._target, target
        if before is None or before.desired.generation != target.desired.generation:
            superseded = self._progress.supersede(self._wall()) if before is not None else None
            if superseded is not None:
                self._snapshots.publish_outcome(superseded)
                self._hooks.on_generation_end(superseded)
            self._progress.begin(target, ended)
        if before is None or before.stack.name != target.stack.name:
            self._observed = ObservedState(complete=False)
        self._replan(self._observed)
        if self._plan.complete:
            self._track(fresh=False)
        self.publish()
        self.wake("desired state")

    def report_mistakes(self, errors: Sequence[Mistake], warnings: Sequence[str] = ()) -> None:
        """Publish the mistakes in the files; the loop continues to converge to the last valid state."""
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

    def _stack(self) -> Stack | None:
        return self._target.stack if self._target else None

    # --- passes ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run passes until ``stop`` is called or the task is cancelled."""
        listener = asyncio.create_task(self._observer.listen(self._stack, self.wake), name="events")
        try:
            while not self._stopping:
                # Clear before observing: an event during the observation requests another pass.
                self._woken.clear()
                due = await self._pass()
                await self._wait_until(due)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await self._prober.close()

    async def stop(self, seconds: float = 3.0) -> None:
        """End ``run`` after the current pass, and wait at most ``seconds`` for steps in flight."""
        self._stopping = True
        self._woken.set()
        await self._executor.drain(seconds)

    async def _wait_until(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._hooks.on_heartbeat()
            until = min(due, loop.time() + self._timings.beat)
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
            self._next_resync = began + self._timings.resync
        target = self._target
        if target is None:
            self.publish()
            self.first_pass.set()
            return self._next_resync
        outcome = await self._observe(target, full=full)
        if self._target is not target:
            # The target changed while observing: the observation may lack parts of it, so observe again.
            self._full = self._full or full
            self._woken.set()
        elif outcome == "observed":
            known = set(self._plan.drifts)
            outcome = self._try_decide()
            missed = set(self._plan.drifts) - known if resync else ()
            if missed:
                self._hooks.on_missed_drift(len(missed))
        self.publish()
        self.first_pass.set()
        self._hooks.on_pass(loop.time() - began, outcome)
        if outcome in {"unreachable", "incomplete"}:
            self._full = True
            return loop.time() + retry_delay(max(self._observer.failures, self._plan_failures))
        moments = [self._next_resync, self._plan.due, self._observed.again]
        due = min(moment for moment in moments if moment is not None)
        # Clocks differ slightly; without a minimum a moment just ahead causes a tight loop.
        return max(due, loop.time() + MIN_PAUSE)

    async def _observe(self, target: AcceptedState, *, full: bool) -> str:
        """Observe the engine; return ``observed``, ``incomplete`` or ``unreachable``."""
        outcome, observed = await self._observer.observe(
            target.stack, self._ledger, self._observed, full=full
        )
        if outcome == "observed":
            if self._probed:
                self._probed &= starting_runs(observed)
            self._observed = with_probed(observed, self._probed)
        elif outcome == "unreachable":
            self._prober.follow(())
        return outcome

    def _try_decide(self) -> str:
        try:
            outcome = self._decide()
        except Exception as error:
            # The observation or the ledger has an unexpected shape. The next observation may be valid.
            self._plan_failures += 1
            text = f"{type(error).__name__}: {error}"
            if text != self._plan_error:
                log.exception("planning from this observation failed")
            self._plan_error = text
            return "incomplete"
        self._plan_error, self._plan_failures = "", 0
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
        self._log_capture.capture(before, self._ledger)
        self._replan(self._observed)
        self._ledger = mark_settled(self._ledger, self._plan)
        self._sent_steps.forget(self._plan)
        self._executor.cancel_overtaken(self._plan)
        admitted = self._executor.admit_steps(self._plan.steps, self._observed.began)
        steps = tuple(step for step in admitted if self._may_have_effect(step, now))
        if self._stopping:
            steps = ()
        for step in steps:
            self._before_step(target, step, now)
        if self._ledger is not before:
            self._hooks.on_ledger(self._ledger)
        if steps:
            self._executor.send(steps, target.stack)
        if self._can_probe:
            self._prober.follow(probe_targets(self._plan, target.stack, self._ledger, now))
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

    def _may_have_effect(self, step: Step, now: Clock) -> bool:
        """Return False if the engine reported the step as done before and nothing changed since."""
        if not self._sent_steps.had_no_effect(step, self._plan):
            return True
        self._ledger = record_ineffective_step(self._ledger, step, self._plan, now, chance=self._chance())
        # Plan again: the back-off may now be something to wait for.
        self.wake("no effect")
        return False

    def _before_step(self, target: AcceptedState, step: Step, now: Clock) -> None:
        context = StepContext(target.stack, target.desired, self._observed, self._plan)
        self._ledger = self._sent_steps.before_send(self._ledger, step, context, now)
        self._progress.tracker.started(step, now.wall)
        self._hooks.on_step(step, None, False)
        log.info("step", extra={"service": step.service, "action": str(step.action), "why": step.why})

    def _after_step(self, step: Step, error: EngineError | None) -> None:
        """Record the result of a step."""
        now = self._now()
        self._ledger = self._sent_steps.after_send(self._ledger, step, error, now, chance=self._chance())
        if error is not None:
            log.warning(
                "step failed",
                extra={"service": step.service, "action": str(step.action), "error": str(error)},
            )
        self._progress.tracker.finished(step, now.wall, str(error) if error else "")
        self._hooks.on_step(step, error, True)
        self._hooks.on_ledger(self._ledger)
        self.wake(f"{step.action} of {step.service} returned")

    def _probe_succeeded(self, container: Container, not_at: float, at: float) -> None:
        self._probed.add(container.run)
        self._ledger = record_start_time(self._ledger, container.service, not_at=not_at, at=at)
        self._hooks.on_ledger(self._ledger)
        self.wake(f"{container.service} is ready")

    # --- snapshot --------------------------------------------------------------------------------

    def _track(self, *, fresh: bool = True) -> None:
        self._progress.update(self._plan, self._ledger, self._executor.in_flight, self._now(), fresh=fresh)

    def publish(self) -> Snapshot:
        """Publish a snapshot of the current state."""
        target = self._target
        if target is None:
            return self._snapshots.publish(
                Snapshot(
                    at=self._wall(),
                    engine=self._observer.view,
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
            progress=self._progress.current,
            engine=self._observer.view,
            now=self._now(),
            in_flight=self._executor.in_flight,
            usage=self._usage,
            errors=self._errors,
            warnings=self._warnings,
            observed_generation=self._progress.observed_generation,
            accepted_at=target.accepted_at,
        )
        return self._snapshots.publish(build(inputs))
