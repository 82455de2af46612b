"""While a cell runs truly: how long it has run, and what grows in it."""


def begin(shell, sets) -> None:
    pass


def end() -> None:
    pass
