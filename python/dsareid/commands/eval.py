"""dsareid eval"""

from dsareid.commands.options import DataOption, FileOption, Flag, RunPath, maps_maker
from dsareid.models.table import MatchedBy


def command(
    run: RunPath,
    data: DataOption = None,
    features: MatchedBy | None = None,
    protocol: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    rerank: Flag = False,
    queries: FileOption = None,
    estimate: Flag = False,
) -> None:
    """Compute mAP, mINP, rank-1/5/10 and TPR over pairs, beside those of colour histograms and chance.

    Args:
        run: The folder that train wrote.
        data: The data set or a store of it; default: the one the run was trained on.
        features: mf: f of the MF-Stream, from the images alone (the default).
            fused: z of both streams; guide: d of the DSAG-Stream.
            With guidance pool, guide: the parts' features; fused: f and those.
            fused and guide need the IUV maps of query and gallery. -global, -local: one branch alone.
        protocol: Protocol of the data set, such as multi-query or distractors; default: the run's own.
        batch_size: Images at a time.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        rerank: Also rank after k-reciprocal re-ranking (Zhong et al., 2017); most papers report figures
            without it. Its time grows with the square of the number of images.
        queries: Write a line of JSON for each query to this file: its image, identity and camera, AP,
            INP and the place of its first match.
        estimate: If the features need IUV maps, first estimate the missing ones, as densepose estimate ROOT
            does.
    """
    from dsareid.evaluation.evaluate_run import evaluate
    from dsareid.evaluation.verification import RATES
    from dsareid.runs.records import format_pairs, format_table

    evaluation = evaluate(
        run,
        data,
        features,
        batch_size=batch_size,
        device=device,
        protocol=protocol,
        rerank=rerank,
        queries=queries,
        make_maps=maps_maker(estimate, device),
    )
    if evaluation:
        rows = [*evaluation.rows, *evaluation.baselines]
        print("\n".join([format_table(rows), format_pairs(rows, RATES), *evaluation.notes]))
