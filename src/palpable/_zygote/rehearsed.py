"""A module with a function, to be the user's in a rehearsal (see `rehearsal`)."""


def add_one(number: int) -> int:
    return number + 1
