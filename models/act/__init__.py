"""ACT: the autoencoders of stage I, the students of stage II, and what is fine-tuned of them."""
