#!/bin/sh
# Process 1 of a stand-in container: a service reduced to what an orchestrator observes. It needs a while to
# become ready, stops at TERM with the exit code of the real one, and fails on request:
#
#   STANDIN_READY_AFTER=0.5   seconds until its health check (check.sh) succeeds; 0 when not given
#   STANDIN_STOP_AFTER=0.2    seconds between TERM and the end
#   STANDIN_EXIT_CODE=143     exit code after TERM, or when STANDIN_RUN_FOR is over; 0 when not given
#   STANDIN_RUN_FOR=3         exit this many seconds after being ready: a one-shot, or, with an exit code,
#                             a service that crashes
#   STANDIN_FAIL=1            exit at once with this code
#   STANDIN_NEVER_READY=1     run, but fail every health check
#   STANDIN_IGNORE_TERM=1     exit only at KILL
#   STANDIN_HANG_CHECK=1      health checks never return
#   STANDIN_MEMORY_MB=100     use this much memory
#
# In a running container `rm /run/standin/ready` makes it unhealthy, `touch` makes it healthy again.
# Arguments, the real service's command, are ignored.
set -u
ready=/run/standin/ready
rm -f "$ready" # left by a killed run

on() {
    case "${1:-}" in '' | 0 | no | off | false) return 1 ;; esac
}

# Only `wait` returns at once for a trap, so TERM is handled without delay. `wait` also reaps the orphans that
# process 1 inherits.
pause() {
    sleep "$1" &
    wait $!
}

end() {
    rm -f "$ready"
    exit "$1"
}

stop() {
    trap '' TERM INT
    echo "stopping"
    sleep "${STANDIN_STOP_AFTER:-0}"
    end "${STANDIN_EXIT_CODE:-0}"
}

if on "${STANDIN_FAIL:-}"; then
    echo "failing, because STANDIN_FAIL is set" >&2
    exit "$STANDIN_FAIL"
fi
if on "${STANDIN_IGNORE_TERM:-}"; then
    trap '' TERM INT
else
    trap stop TERM INT # PostgreSQL's image uses INT for a fast shutdown
fi

echo "starting"
hog=
if on "${STANDIN_MEMORY_MB:-}"; then
    # dd fills a buffer of that size and then waits for a reader that never comes.
    rm -f /run/standin/hog
    mkfifo /run/standin/hog
    exec 3<>/run/standin/hog
    dd if=/dev/zero of=/run/standin/hog bs="${STANDIN_MEMORY_MB}000000" count=1 2>/dev/null &
    hog=$!
fi

pause "${STANDIN_READY_AFTER:-0}"
if ! on "${STANDIN_NEVER_READY:-}"; then
    echo "ready" # before the file, so that its time in the log is before the start of dependents
    : >"$ready"
fi

if [ -n "$hog" ]; then
    wait "$hog" # out of memory, the kernel kills the child, and the service exits with it
    end $?
elif [ -n "${STANDIN_RUN_FOR:-}" ]; then
    pause "$STANDIN_RUN_FOR"
    echo "done"
    end "${STANDIN_EXIT_CODE:-0}"
fi
pause 2147483647
