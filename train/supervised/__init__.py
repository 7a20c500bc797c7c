"""The paper's recipe on captioned data sets: fit, the folder of a run, batches, evaluation."""
