"""What scripts share: the machine, results, experiments, verdicts and pages."""
