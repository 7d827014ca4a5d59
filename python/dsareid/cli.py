"""The command `dsareid`."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from dsareid import __version__
from dsareid.errors import DSAError

USAGE = """\
usage: dsareid COMMAND [OPTIONS]        (dsareid COMMAND --help shows the options)

  warp     the 24 part images of a photograph and its DensePose map, as one picture
  synth    make the synthetic data set
  pack     decode a data set into a store, which train, eval and report read
  check    whether a store is still as it was packed
  train    train a network
  eval     mAP and rank-1/5/10 of a trained network
  report   one HTML page about a run, with plots, rank lists and DSAP-images
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"dsareid {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"dsareid: error: no command {name!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    try:
        import tyro

        tyro.cli(COMMANDS[name](rest), prog=f"dsareid {name}", args=rest)
    except DSAError as error:
        print(f"dsareid {name}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read what is printed has enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"\ndsareid {name}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


# Each command is built when it is called, so that none pays for another's imports.


def _positional(name: str):
    """The type of a path given by position; `name` is what --help calls it."""
    import tyro

    return Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar=name)]


def _optional_path(name: str):
    """The type of an option that may be left out; `name` stands for its value in --help."""
    import tyro

    return Annotated[Path | None, tyro.conf.arg(metavar=name)]


def _warp(_: list[str]) -> Callable:
    import tyro

    def warp(
        image: _positional("IMAGE"),
        iuv: _positional("IUV"),
        out: _positional("OUT"),
        box: Annotated[str | None, tyro.conf.arg(metavar="X0,Y0,X1,Y1")] = None,
        size: int = 32,
        scale: int = 0,
    ) -> None:
        """Draw the 24 part images of a photograph as one labelled picture.

        Down the rows of a part U grows, along its columns V. Holes show as a grey checkerboard.

        Args:
            image: The photograph.
            iuv: Its classic NAME_IUV.png (Pillow sees R=V, G=U, B=I), of the same size.
            out: The picture to write (.png).
            box: In pixels, the last two exclusive: picks one of several people.
            size: Cells on each side of a part image, 1..256.
            scale: Pixels that a cell becomes on each side; 0 makes a part at least 160 wide.
        """
        from dsareid.files import atomic_path
        from dsareid.textures import draw_part_images, part_images

        if not 1 <= size <= 256:
            raise DSAError(f"--size must be 1..256, not {size}")
        if not 0 <= scale <= 160:
            raise DSAError(f"--scale must be 0..160, not {scale}")
        colours, filled = part_images(image, iuv, size, box=_parse_box(box))
        picture = draw_part_images(colours, filled, scale or -(-160 // size))
        with atomic_path(out) as temporary:
            try:
                picture.save(temporary)
            except ValueError as error:
                raise DSAError(f"{out}: the name must end in .png or another image type") from error
        visible = int(filled.any((1, 2)).sum())
        where = "the box" if box else "the image"
        empty = "" if visible else f"; the IUV map is all background in {where}"
        print(f"{out}: {visible} of 24 parts visible{empty}")

    return warp


def _parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError as error:
        raise DSAError(f"--box must be x0,y0,x1,y1 in whole pixels, not {text!r}") from error
    return x0, y0, x1, y1


def _synth(_: list[str]) -> Callable:
    import tyro

    from dsareid.synth import SynthConfig, generate

    def synth(
        out: _positional("OUT"),
        config: Annotated[SynthConfig, tyro.conf.arg(name="")] = SynthConfig(),
    ) -> None:
        """Make the synthetic data set: rendered people with IUV maps, in Market-1501's layout.

        Args:
            out: The folder to create.
        """
        generate(out, config)

    return synth


def _pack(_: list[str]) -> Callable:
    import tyro

    def command(
        root: _positional("ROOT"),
        out: _positional("OUT"),
        height: int | None = None,
        width: int | None = None,
        skip_broken: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> None:
        """Decode a data set once into a store: arrays that --data takes in place of its folder.

        Train, eval and report do so by themselves, into ROOT/store-HxW. A call that was interrupted
        is gone on with by the next one.

        Args:
            root: The data set: a folder with bounding_box_train, query, bounding_box_test and iuv.
            out: The store's folder; it is created.
            height: Rows of the stored images, with --width. Those of the files unless given, or 256
                where the files are not of one size.
            width: Columns of the stored images, with --height; 128 where the files are not of one size.
            skip_broken: Leave out images that cannot be read or are misnamed, and list them.
        """
        from dsareid.data.pack import pack
        from dsareid.data.store import describe

        print(describe(pack(root, out, height, width, skip_broken=skip_broken)))

    return command


def _check(_: list[str]) -> Callable:
    def command(store: _positional("STORE")) -> None:
        """Say what a store holds, and compare the checksum of each of its files.

        Args:
            store: The folder that pack made.
        """
        from dsareid.data.store import describe, open_store, verify

        opened = open_store(store)
        print(describe(opened))
        verify(opened)
        print("ok")

    return command


def _train(arguments: list[str]) -> Callable:
    import tyro

    from dsareid.engine import PRESETS, TrainConfig, train
    from dsareid.engine.config import load_config
    from dsareid.engine.run import CONFIG

    chosen, resuming, run = _peek(arguments)
    default = PRESETS.get(chosen, PRESETS["paper"])
    if resuming and run:
        default = load_config(Path(run) / CONFIG)  # a resumed run keeps its settings

    def command(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        preset: Literal["paper", "demo"] = "paper",
        resume: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> None:
        """Train a network. The images are decoded once, into a store; DSAP-images are warped on the fly.

        Args:
            preset: paper: the paper's recipe.
                demo: a small network that learns from random weights on two cores in minutes.
                The defaults below are those of the chosen preset.
            resume: Go on with the run in --out, with its settings.
        """
        # Absolute: `dsareid eval RUN` is to find the data from any folder.
        train(dataclasses.replace(config, data=config.data.absolute()), resume=resume)

    return command


def _peek(arguments: list[str]) -> tuple[str, bool, str | None]:
    """The options that decide about the defaults of all others: --preset, --resume and --out."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default="paper")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", nargs="?")
    known, _ = parser.parse_known_args(arguments)
    return known.preset, known.resume, known.out


def _eval(_: list[str]) -> Callable:
    def command(
        run: _positional("RUN"),
        data: _optional_path("ROOT") = None,
        features: Literal["mf", "fused"] = "mf",
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        """mAP and rank-1/5/10 on query and gallery, beside colour histograms and chance.

        Args:
            run: The folder that train wrote.
            data: The data set or a store of it; the one the run was trained on unless given.
            features: mf: f of the MF-Stream, from the images alone.
                fused: z = f + d of both streams; needs the IUV maps of query and gallery.
            batch_size: Images at a time.
            device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        """
        from dsareid.engine.run import choose_device
        from dsareid.evaluation import evaluate

        if batch_size < 1:
            raise DSAError(f"--batch-size must be at least 1, not {batch_size}")
        evaluate(run, data, features, batch_size, choose_device(device))

    return command


def _report(_: list[str]) -> Callable:
    def command(run: _positional("RUN"), data: _optional_path("ROOT") = None) -> None:
        """Write RUN/report.html: one self-contained page.

        Args:
            run: The folder that train wrote.
            data: The data set or a store of it; the one the run was evaluated on, or trained on,
                unless given.
        """
        from dsareid.evaluation import format_table
        from dsareid.report import read_run, write_report

        path = write_report(run, data)
        if rows := read_run(run).rows():
            print(format_table(rows))
        else:
            print(f"not evaluated yet: dsareid eval {run}")
        print(f"report: {path}")

    return command


COMMANDS: dict[str, Callable[[list[str]], Callable]] = {
    "warp": _warp,
    "synth": _synth,
    "pack": _pack,
    "check": _check,
    "train": _train,
    "eval": _eval,
    "report": _report,
}

if __name__ == "__main__":
    sys.exit(main())
