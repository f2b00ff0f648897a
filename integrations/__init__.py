"""The stacks that MixLM plugs into, one file each. Nothing here is imported unless you ask for it."""
