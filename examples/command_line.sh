#!/usr/bin/env bash
# The command line: a server, functions and commands as tasks, and a look at what happened. Needs no Python of yours.
set -eu

PALPABLE_HOME=$(mktemp -d) # a server of its own for this example; leave this out, and it is your default server
export PALPABLE_HOME
palpable serve --workers 2 --store none > "$PALPABLE_HOME/said" &
until grep -qs Listening "$PALPABLE_HOME/said"; do sleep 0.1; done
trap 'palpable stop > "$PALPABLE_HOME/said"; wait; rm -r "$PALPABLE_HOME"' EXIT

echo "a function:"
palpable run statistics:mean --args '[[1, 2, 6]]'

echo "a command, its output and its exit code:"
palpable run --name greeting -- sh -c 'echo hello; exit 3' 2> /dev/null || echo "exit code $?"

echo "a function over lines:"
seq 4 | palpable map math:sqrt

echo "how many ended how:"
palpable tasks --json | sed 's/.*"state": *"\([a-z]*\)".*/\1/' | sort | uniq -c | tr -s ' '
