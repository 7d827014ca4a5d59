"""dsareid check"""

from pathlib import Path
from typing import Annotated

import tyro


def command(store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]) -> None:
    """Print what a store holds, and verify the checksum of each of its files.

    Args:
        store: The folder that pack made.
    """
    from dsareid.data.store.reader import open_store, store_summary, verify

    opened = open_store(store)
    print(store_summary(opened))
    verify(opened)
    print("ok")
