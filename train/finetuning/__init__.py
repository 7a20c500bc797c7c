"""Fine-tuning on marks: a job, its round and loop, the pairs it learns from, the gate that judges it."""
