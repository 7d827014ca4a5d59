"""dsareid synth"""

from typing import Annotated

import tyro

from dsareid.commands.options import OutPath
from dsareid.synth.config import SynthConfig


def command(
    out: OutPath,
    config: Annotated[SynthConfig, tyro.conf.arg(name="")] = SynthConfig(),
) -> None:
    """Make the synthetic data set: rendered people with IUV maps, in Market-1501's layout.

    Args:
        out: The folder to create.
    """
    from dsareid.synth import generate

    generate(out, config)
    print(
        f"{out}: {config.identities:,} people, {config.images:,} images each, {config.height}x{config.width}"
    )
