"""Models against each other: test sets, controlled sweeps, matrices of scores, reports, listening tests."""
