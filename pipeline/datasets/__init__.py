"""Sources of cases, and how they are divided into folds."""
