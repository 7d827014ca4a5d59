"""Packing: a data set's files, decoded once, into a store."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dsareid.data.images import LONGEST_SIDE, image_size, read_image
from dsareid.data.iuv import read_pair
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import ALL_SPLITS, Entry, Listing, MakeMaps
from dsareid.data.layouts.synthetic import SYNTH_RECORD
from dsareid.data.store.format import (
    CAMERAS,
    HAS_IUV,
    HEADER,
    IDS,
    IMAGES,
    IUV,
    NAMES,
    SKIPPED,
    SPLIT,
    Contents,
    MapCounts,
    SkippedFile,
    StoreLayout,
)
from dsareid.data.store.reader import Store, open_store
from dsareid.data.store.writer import StoreWriter, open_writer, remove_leftovers
from dsareid.ground.errors import DSAError, logger, quoted
from dsareid.ground.files import make_folder
from dsareid.ground.machine import cores, on_threads


class _Broken(DSAError):
    """A file that cannot be packed."""


@dataclass(frozen=True)
class PackPlan:
    """The images to pack, and their stored size."""

    listing: Listing
    height: int
    width: int
    resized: bool

    @property
    def layout(self) -> StoreLayout:
        entries = self.listing.entries
        return StoreLayout(
            images=len(entries),
            height=self.height,
            width=self.width,
            iuv=any(entry.iuv for entry in entries),
            name_bytes=max(len(entry.name.encode()) for entry in entries),
        )


def pack(
    root: str | os.PathLike,
    out: str | os.PathLike,
    height: int | None = None,
    width: int | None = None,
    *,
    protocol: str = "",
    default: tuple[int, int] = (256, 128),
    skip_broken: bool = False,
    make_maps: MakeMaps | None = None,
) -> Store:
    """Decode a data set into a store, with a progress bar and on all cores.

    Junk (identity -1) is dropped; distractors (identity 0) stay. Interrupted calls resume on the next call.
    If `out` already is the store of the same files, it is opened.

    Args:
        root: the data set.
        out: the folder to make.
        height, width: rows and columns of the stored images, both or neither; default: those of the files.
            Images are resized bilinearly, IUV maps by nearest neighbour.
        protocol: the protocol by which the data set is split, as for list_data.
        default: the height and width if the files differ in size.
        skip_broken: leave out files that cannot be read or are misnamed, instead of raising; the
            store's header lists them.
        make_maps: called with root and protocol before anything is packed, to make the maps that are missing;
            dsareid.densepose.estimate_missing estimates them.

    Raises:
        DSAError: not a data set, a file that cannot be read or is misnamed, an IUV map of another size than
            its image, or `out` is something else or cannot be written (a full disk).
    """
    given = None
    if height is not None or width is not None:
        if height is None or width is None or not all(1 <= x <= LONGEST_SIDE for x in (height, width)):
            raise DSAError(
                f"`height` and `width` must both be given, 1..{LONGEST_SIDE}, not {height} and {width}"
            )
        given = height, width
    root, out = Path(root), Path(out)
    if not is_free(out) and not os.path.lexists(out / HEADER):
        raise DSAError(f"{out}: exists already and is not a store; choose another folder")
    if make_maps:
        make_maps(root, protocol)
    listing = list_data(root, protocol)
    for note in listing.notes:
        logger.warning(note)
    if missing := listing.without_map(ALL_SPLITS):
        logger.warning(
            f"{listing.root}: {len(missing):,} of {len(listing.entries):,} images have no IUV map, which a "
            f"guide needs; {listing.how_to_estimate()}"
        )
    plan = plan_store(listing, given, default)
    if is_free(out):
        make_folder(out.parent)
        with open_writer(out, plan.layout, listing.fingerprint) as writer:
            if is_free(out):  # another process may have made it in the meantime
                return pack_files(plan, writer, skip_broken)
    return _existing_store(out, plan)


def is_free(out: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir()))


def _existing_store(out: Path, plan: PackPlan) -> Store:
    """The store `out`, if it is the planned one."""
    try:
        store = open_store(out)
    except DSAError as error:
        raise DSAError(f"{error}; remove {out} first") from error
    found = store.header.source, store.height, store.width
    if found != (plan.listing.fingerprint, plan.height, plan.width):
        raise DSAError(
            f"{out}: exists already, and is not the store of {plan.listing.root} as it is now with "
            f"{plan.height} rows x {plan.width} columns; remove it, or choose another folder"
        )
    remove_leftovers(out)
    logger.info(f"{out} already holds these files")
    return store


# ---- the size ----


def plan_store(listing: Listing, given: tuple[int, int] | None, default: tuple[int, int]) -> PackPlan:
    """Choose the stored size: the given one, else the files' size if all have the same, else the default.

    Raises:
        DSAError: all files have the same size, but it is too large to be stored.
    """
    same = given
    paths = [listing.root / entry.name for entry in listing.entries]
    for path, size in zip(paths, on_threads(_file_size, paths)):
        same = same or size
        if size is not None and size != same:
            if same and not given:
                sizes = "{} rows x {} columns, others {} x {}".format(*size, *same)
                all_as = "{} x {}".format(*default)
                logger.warning(f"{path} is {sizes}: all images are stored as {all_as}")
            return PackPlan(listing, *(given or default), resized=True)
    if same and max(same) > LONGEST_SIDE:
        raise DSAError(
            f"{listing.root}: its images are {same[0]} x {same[1]}, but at most {LONGEST_SIDE} rows and "
            "columns can be stored: give `height` and `width`"
        )
    return PackPlan(listing, *(same or default), resized=False)


def _file_size(path: Path) -> tuple[int, int] | None:
    """Rows and columns of an image by its header alone; None if that cannot be read."""
    try:
        width, height = image_size(path)
    except DSAError:  # a broken file is named when it is decoded
        return None
    return height, width


# ---- the files ----


def pack_files(plan: PackPlan, writer: StoreWriter, skip_broken: bool) -> Store:
    """Pack the planned files with a writer; replaces a store that is there.

    Raises:
        DSAError: a file that cannot be packed.
        OSError: the store cannot be written.
    """
    root = plan.listing.root
    try:
        for entry in plan.listing.entries:
            if entry.misnamed and not skip_broken:
                raise _Broken(f"{root / entry.name}: {entry.misnamed}")
        writer.resume(redo_skipped=not skip_broken)
        _decode(plan, writer, skip_broken)
    except _Broken as error:
        kept = f"; what is packed is kept in {writer.partial}" if writer.partial.exists() else ""
        by = f"`protocol={plan.listing.protocol}` and " if plan.listing.protocol else ""
        command = f"dsareid pack {quoted(root)} {quoted(writer.out)}"
        skip = f"{command} with {by}`skip_broken=True` skips such files"
        raise DSAError(f"{error} ({skip}{kept})") from error
    writer.finish(*_labels(plan, writer))
    return open_store(writer.out)


def _decode(plan: PackPlan, writer: StoreWriter, skip_broken: bool) -> None:
    """Decode and write the chunks that are not finished."""
    count = writer.layout.images
    with (
        ThreadPoolExecutor(cores()) as pool,  # Pillow decodes without the GIL
        tqdm(
            total=count, initial=writer.written, desc="packing", unit="image", leave=False, disable=None
        ) as progress,
    ):
        try:
            for rows in writer.remaining:
                pixels, problems = _decode_chunk(plan, writer.layout, pool, rows, progress.update)
                skipped = _skipped_files(plan, rows, problems)
                if skipped and not skip_broken:
                    first = next(filter(None, problems))
                    raise _Broken(str(first)) from first
                writer.write_rows(rows, pixels, skipped)
        except KeyboardInterrupt as interrupt:
            note = f"interrupted; {writer.written:,} of {count:,} images are packed, the same command resumes"
            raise KeyboardInterrupt(note) from interrupt


def _decode_chunk(
    plan: PackPlan,
    layout: StoreLayout,
    pool: ThreadPoolExecutor,
    rows: range,
    advance: Callable[[], object],
) -> tuple[dict[str, np.ndarray], list[DSAError | None]]:
    """The images and maps of some rows, uint8 [n, H, W, 3] each, zeros where a file is broken."""
    shape = (len(rows), plan.height, plan.width, 3)
    pixels = {name: np.zeros(shape, np.uint8) for name in layout.pixels}

    def decode(k: int) -> DSAError | None:
        entry = plan.listing.entries[rows[k]]
        try:
            image, chart = _read(plan.listing.root, entry)
        except DSAError as error:
            return error
        pixels[IMAGES][k] = _resize(image, plan, Image.Resampling.BILINEAR)
        if chart is not None:
            pixels[IUV][k] = _resize(chart, plan, Image.Resampling.NEAREST)
        return None

    problems = []
    for problem in pool.map(decode, range(len(rows))):
        problems.append(problem)
        advance()
    return pixels, problems


def _read(root: Path, entry: Entry) -> tuple[np.ndarray, np.ndarray | None]:
    if entry.misnamed:
        raise DSAError(f"{root / entry.name}: {entry.misnamed}")
    if entry.iuv is None:
        return read_image(root / entry.name), None
    return read_pair(root / entry.name, root / entry.iuv)


def _resize(array: np.ndarray, plan: PackPlan, how: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == (plan.height, plan.width):
        return array
    return np.asarray(Image.fromarray(array).resize((plan.width, plan.height), how))


def _skipped_files(plan: PackPlan, rows: range, problems: Iterable[DSAError | None]) -> list[SkippedFile]:
    """The broken files of a chunk."""
    skipped = []
    for row, problem in zip(rows, problems):
        if problem is not None:
            name = plan.listing.entries[row].name
            reason = str(problem).replace(f"{plan.listing.root}{os.sep}", "").removeprefix(f"{name}: ")
            skipped.append(SkippedFile(file=name, reason=reason))
    return skipped


def _labels(plan: PackPlan, writer: StoreWriter) -> tuple[dict[str, list], Contents]:
    """The values of the small arrays, and what the header says of the data."""
    listing, skipped = plan.listing, writer.skipped
    left_out = {file.file for file in skipped}
    entries = [(entry, entry.name not in left_out) for entry in listing.entries]
    labels: dict[str, list] = {
        HAS_IUV: [bool(entry.iuv) and kept for entry, kept in entries],
        IDS: [entry.identity for entry, _ in entries],
        CAMERAS: [entry.camera for entry, _ in entries],
        SPLIT: [ALL_SPLITS.index(entry.split) if kept else SKIPPED for entry, kept in entries],
        NAMES: [entry.name.encode() for entry, _ in entries],
    }
    counts = {split: labels[SPLIT].count(code) for code, split in enumerate(ALL_SPLITS)}
    kinds = _map_kinds(writer, labels[HAS_IUV])
    if not any(counts.values()):
        first = skipped[0]
        raise DSAError(f"{listing.root}: every image is broken; the first: {first.file}: {first.reason}")
    contents = Contents.model_validate(
        {
            "splits": {split: count for split, count in counts.items() if count},
            "expected": dict(listing.dataset.expected),
            "maps": {
                split: found
                for code, split in enumerate(ALL_SPLITS)
                if (found := _count_maps(kinds[np.array(labels[SPLIT]) == code]))
            },
            "resized": plan.resized,
            "dataset": listing.dataset.name,
            "protocol": listing.protocol,
            "cameras": listing.cameras,
            "synthetic": (listing.root / SYNTH_RECORD).exists(),
        }
    )
    return labels, contents


_NO_MAP, _EMPTY, _FLAT, _PERSON = range(4)


def _map_kinds(writer: StoreWriter, has_map: list[bool]) -> np.ndarray:
    """What each image's map shows, uint8 [N]: _NO_MAP, nobody, parts without coordinates, or a person."""
    kinds = np.full(len(has_map), _NO_MAP, np.uint8)
    if any(has_map):
        charts = np.load(writer.partial / IUV, mmap_mode="r")
        for row in np.flatnonzero(has_map):
            body = charts[row, ..., 0] > 0
            kinds[row] = (_PERSON if charts[row, ..., 1:][body].any() else _FLAT) if body.any() else _EMPTY
    return kinds


def _count_maps(kinds: np.ndarray) -> MapCounts | None:
    counts = np.bincount(kinds, minlength=4)
    maps, people = int(counts[1:].sum()), int(counts[_FLAT] + counts[_PERSON])
    return MapCounts(maps=maps, people=people, flat=int(counts[_FLAT])) if maps else None
