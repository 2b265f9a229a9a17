"""The start of a zygote: `python -P .../_zygote/__main__.py CONTROL_FD SETTINGS_FD FOLDER...`.

Runs in: the zygote. Started by: the server (`zygote_handle`), and by a zygote that starts itself anew.

It is run by its path, as a plain script: the folders from which this package and msgspec can be imported follow as
arguments, and all else comes in the settings. `site` is processed as usual, so that editable installations (also those
with import hooks), virtual environments and `sitecustomize` work in tasks as they do in the server; PYTHON*
variables count too. Then `sys.path` becomes the server's own.
"""

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # of what it would look through now, a fifteenth of the time, nothing to speak of is garbage
    for _folder in sys.argv[3:]:
        if _folder not in sys.path:
            sys.path.append(_folder)

    from palpable._zygote import fork_hooks, huge_pages

    huge_pages.reserve_arenas(huge_pages.OWN_ARENAS_BYTES)
    fork_hooks.record()
    from palpable._wire.lean_msgspec import import_msgspec

    import_msgspec()
    from palpable._zygote.start import main

    main(int(sys.argv[1]), int(sys.argv[2]))
