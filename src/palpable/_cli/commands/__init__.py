"""The commands. Each module is named like its command and defines it as `command`; `main.SECTIONS` lists them."""
