"""Data sets of empty files, and what is listed of them."""


def touch_files(root, files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found(listing):
    return [(e.split, e.name, e.identity, e.camera) for e in listing.entries]
