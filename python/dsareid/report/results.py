"""The evaluations of a run, grouped into tables."""

from dataclasses import dataclass

from dsareid.runs.records import Evaluation, Row


@dataclass(frozen=True)
class Results:
    """Evaluations of one checkpoint on one data set by one protocol: a table."""

    evaluations: list[Evaluation]

    @property
    def first(self) -> Evaluation:
        """The evaluation whose rank lists are shown."""
        return self.evaluations[0]

    @property
    def rows(self) -> list[Row]:
        """The model by each kind of features, plain and re-ranked, then the baselines."""
        of_model = {row.name: row for evaluation in self.evaluations for row in evaluation.rows}
        return [*of_model.values(), *self.first.baselines]

    @property
    def title(self) -> str:
        """The title that tells this table from the run's others."""
        first = self.first
        protocol = f", protocol {first.protocol}" if first.protocol else ""
        return f"{first.dataset}{protocol}, {first.data}, step {first.checkpoint.step}"


def group_results(evaluations: list[Evaluation]) -> list[Results]:
    """The tables of a run, in the order of their first evaluations; every evaluation is in one."""
    groups: dict[tuple[str, str, int], list[Evaluation]] = {}
    for found in evaluations:
        groups.setdefault((found.data, found.protocol, found.checkpoint.step), []).append(found)
    return [Results(group) for group in groups.values()]
