"""Programs that use the service as any user could: over its two addresses alone."""
