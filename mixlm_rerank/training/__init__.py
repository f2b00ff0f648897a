"""Training: candidate pools, teachers, and the joint training of item encoder and ranker."""
