"""Shell texts that several adapters run inside a sandbox."""
