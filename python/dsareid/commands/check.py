"""dsareid check"""

from dsareid.commands.options import positional
from dsareid.data.store.reader import describe, open_store, verify


def command(store: positional("STORE")) -> None:
    """Say what a store holds, and compare the checksum of each of its files.

    Args:
        store: The folder that pack made.
    """
    opened = open_store(store)
    print(describe(opened))
    verify(opened)
    print("ok")
