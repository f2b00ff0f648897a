"""How fast is it, against what else one could do and against what this machine can do? ``mixlm-rerank bench``."""
