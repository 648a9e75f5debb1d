"""The stages of a run, each a plug-in with one verb: run."""
