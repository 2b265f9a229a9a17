"""The commands. Each module is named like its command and defines it as `command`; `main.SECTIONS` lists them."""

from palpable._wire.lean_msgspec import import_msgspec

import_msgspec()
