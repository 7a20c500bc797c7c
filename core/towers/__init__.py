"""Which of open_clip's architectures the PETL modules fit, and what SigLIP's towers need for it."""
