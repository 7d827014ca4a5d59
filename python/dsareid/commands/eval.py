"""dsareid eval"""

import tyro

from dsareid.commands.options import optional_path, positional
from dsareid.evaluation import Features, evaluate
from dsareid.ground.errors import DSAError
from dsareid.runs.folder import choose_device


def command(
    run: positional("RUN"),
    data: optional_path("ROOT") = None,
    features: Features | None = None,
    protocol: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    rerank: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """mAP and rank-1/5/10 on query and gallery, beside colour histograms and chance.

    Args:
        run: The folder that train wrote.
        data: The data set or a store of it; the one the run was trained on unless given.
        features: mf: f of the MF-Stream, from the images alone (the default).
            fused: z of both streams; guide: d of the DSAG-Stream.
            Both need the IUV maps of query and gallery. With -global or -local: of those branches alone.
        protocol: Of the data set, as multi-query or distractors of Market-1501.
            The run's own unless given.
        batch_size: Images at a time.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        rerank: Also after k-reciprocal re-ranking (Zhong et al., 2017), as most figures of other papers are
            not. Its time grows with the square of the number of images.
    """
    if batch_size < 1:
        raise DSAError(f"--batch-size must be at least 1, not {batch_size}")
    evaluate(run, data, features, batch_size, choose_device(device), protocol, rerank)
