"""dsareid report"""

from dsareid.commands.options import DataOption, RunPath
from dsareid.ground.errors import quoted


def command(run: RunPath, data: DataOption = None) -> None:
    """Write RUN/report.html: one self-contained page, with every evaluation of the run.

    Args:
        run: The folder that train wrote.
        data: The data set or a store of it; default: the one the run was evaluated on, else trained on.
    """
    from dsareid.report import group_results, write_report
    from dsareid.runs.folder import RunFolder
    from dsareid.runs.records import format_table

    page = write_report(run, data)
    tables = group_results(RunFolder(run).evaluations())
    for results in tables:
        if len(tables) > 1:
            print(results.title)
        print("\n".join([format_table(results.rows), *results.first.notes]))
    if not tables:
        print(f"not evaluated yet: dsareid eval {quoted(run)}")
    print(f"report: {page}")
