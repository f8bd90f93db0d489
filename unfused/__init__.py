"""UnFuSeD (arXiv:2303.05668): unsupervised fine-tuning by self-supervised distillation, in four stages."""
