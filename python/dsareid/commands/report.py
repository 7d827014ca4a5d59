"""dsareid report"""

from dsareid.commands.options import DataOption, RunPath


def command(run: RunPath, data: DataOption = None) -> None:
    """Write RUN/report.html: one self-contained page.

    Args:
        run: The folder that train wrote.
        data: The data set or a store of it. Default: the one the run was evaluated on, or trained on.
    """
    from dsareid.evaluation import format_table
    from dsareid.report import read_run, write_report

    path = write_report(run, data)
    if rows := read_run(run).rows():
        print(format_table(rows))
    else:
        print(f"not evaluated yet: dsareid eval {run}")
    print(f"report: {path}")
