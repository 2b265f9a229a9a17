"""A storm: clients work, a nemesis kills, and a checker compares what everybody was told with what is on disk.

    python -m stress.storm --seed 7 --kills 500

One module, one part: `job` and `behaviours` are what tasks run, `workload` is what is asked for and how,
`client_process` and `client_actions` ask for it, at a `place`, `server_keeper` starts the server again, `nemesis` and
`faults` do the harm, `event_log` is how all of them write down what they did and saw, `history` reads it, `rules_*` and
`checker` judge it, `report` says it.
"""
