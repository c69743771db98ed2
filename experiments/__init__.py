"""Programs that train, evaluate and report: the experiments of the report and what goes beyond it."""
