#!/bin/sh
# Stands in for every client that a health check of compose.yaml calls, under that client's name. With any
# arguments it succeeds if the stand-in (entry.sh) is ready, and else fails with the exit code of the real client.
case "${STANDIN_HANG_CHECK:-}" in
'' | 0 | no | off | false) ;;
*) exec sleep 2147483647 ;;
esac

[ -e /run/standin/ready ] && exit 0

client=${0##*/}
echo "$client: not ready" >&2
case $client in
curl) exit 7 ;; # could not connect
pg_isready) exit 2 ;; # no response
wget) exit 4 ;; # network failure
*) exit 1 ;;
esac
