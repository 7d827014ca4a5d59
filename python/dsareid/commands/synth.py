"""dsareid synth"""

from typing import Annotated

import tyro

from dsareid.commands.options import positional
from dsareid.synth import SynthConfig, generate


def command(
    out: positional("OUT"),
    config: Annotated[SynthConfig, tyro.conf.arg(name="")] = SynthConfig(),
) -> None:
    """Make the synthetic data set: rendered people with IUV maps, in Market-1501's layout.

    Args:
        out: The folder to create.
    """
    generate(out, config)
